package rbac

import (
	"slices"
	"strings"
	"sync"

	"cairn/toolstack/api"
)

// permission is something a role may do.
type permission struct {
	name  string
	least Role
}

// permissions are all of them by name, made when first asked for: most
// sessions never do.
var permissions = sync.OnceValue(func() []permission {
	var all []permission
	messages := api.Messages()
	for i := range messages {
		m := &messages[i]
		if m.State == api.Removed || m.Internal {
			continue
		}
		all = append(all, permission{PermissionOf(m), Parse(m.Role)})
		for j := range mapKeys {
			if k := &mapKeys[j]; k.changes(m) && !strings.HasPrefix(m.Name(), "set_") {
				all = append(all, permission{k.permission(m), k.role})
			}
		}
	}
	for _, name := range []string{"task.cancel/any", "task.destroy/any"} { // others' tasks
		all = append(all, permission{name, PoolOperator})
	}
	actions := api.HTTPActions()
	for i := range actions {
		all = append(all, permission{actions[i].Permission(), Parse(actions[i].Role)})
	}
	slices.SortFunc(all, func(a, b permission) int { return strings.Compare(a.name, b.name) })
	return slices.CompactFunc(all, func(a, b permission) bool { return a.name == b.name })
})

// Permissions are the names of what a role may do, in order. The slice is
// shared and must not be changed.
func Permissions(r Role) []string { return held()[r].names }

// holding is what a role may do, by name and by reference.
type holding struct {
	names []string
	refs  []api.RoleRef
}

var held = sync.OnceValue(func() *[LocalRoot]holding {
	var all [LocalRoot]holding
	for _, p := range permissions() {
		ref := refOf(p.name)
		for r := max(p.least, ReadOnly); r < LocalRoot; r++ {
			all[r].names, all[r].refs = append(all[r].names, p.name), append(all[r].refs, ref)
		}
	}
	return &all
})

// Record is a role's or permission's record with its reference.
type Record struct {
	Ref api.RoleRef
	*api.Role
}

// descriptions of the roles.
var descriptions = [...]string{
	ReadOnly:     "Can see everything and change nothing",
	VMOperator:   "Can start and stop VMs and use their consoles",
	VMAdmin:      "Can also create, change and delete VMs",
	VMPowerAdmin: "Can also choose where VMs run and use what needs the host's help: snapshots with memory, migration, placement",
	PoolOperator: "Can also manage the hosts, storage and networks of the pool",
	PoolAdmin:    "Can do everything, including giving roles to users",
	LocalRoot:    "",
}

// Records are the records of all roles, from the highest down, and of all
// permissions. They are shared and must not be changed.
var Records = sync.OnceValue(func() []Record {
	var all []Record
	for r := PoolAdmin; r >= ReadOnly; r-- {
		record := &api.Role{UUID: uuidOf(names[r]), NameLabel: names[r], NameDescription: descriptions[r], Subroles: held()[r].refs}
		all = append(all, Record{r.Ref(), record})
	}
	for _, p := range permissions() {
		if p.least < LocalRoot {
			all = append(all, Record{refOf(p.name), &api.Role{
				UUID: uuidOf(p.name), NameLabel: p.name, NameDescription: "A single permission",
			}})
		}
	}
	return all
})

var byRef = sync.OnceValue(func() map[api.RoleRef]*api.Role {
	m := make(map[api.RoleRef]*api.Role, len(Records()))
	for _, r := range Records() {
		m[r.Ref] = r.Role
	}
	return m
})

// Find returns the record a reference names, or nil. It is shared and must not
// be changed.
func Find(ref api.RoleRef) *api.Role { return byRef()[ref] }

// Holders are the roles that have a permission, from the highest down.
func Holders(wanted string) []api.RoleRef {
	all := permissions()
	at, ok := slices.BinarySearchFunc(all, wanted, func(p permission, name string) int { return strings.Compare(p.name, name) })
	if !ok {
		return nil
	}
	var refs []api.RoleRef
	for r := PoolAdmin; r >= ReadOnly && r >= all[at].least; r-- {
		refs = append(refs, r.Ref())
	}
	return refs
}
