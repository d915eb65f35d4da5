// Package rbac says which role may do what: the six roles, each of which may do
// all that the ones below it may, and the permissions they hold. A permission is
// a message ("vm.start"), one key of a map that a message changes
// ("vm.add_to_other_config/key:folder"), or a stream beside the messages
// ("http/get_export").
//
// Everything is derived from the tables of package api and from keys.go; nothing
// is stored. References of roles and permissions are made of their names, so they
// are the same on every host and after every update. All of it is immutable and
// may be used by many goroutines.
package rbac

import (
	"crypto/md5" // names things, protects nothing
	"encoding/hex"
	"fmt"
	"strings"

	"cairn/toolstack/api"
)

// Role is what a user may do at most. A greater role may do all a lesser may.
type Role uint8

// The roles. LocalRoot is that of root and of the host itself: no subject can
// be given it.
const (
	None Role = iota
	ReadOnly
	VMOperator
	VMAdmin
	VMPowerAdmin
	PoolOperator
	PoolAdmin
	LocalRoot
)

var names = [...]string{
	None: "", ReadOnly: "read-only", VMOperator: "vm-operator", VMAdmin: "vm-admin", VMPowerAdmin: "vm-power-admin",
	PoolOperator: "pool-operator", PoolAdmin: "pool-admin", LocalRoot: "none(local-root)",
}

// String is the role's name_label.
func (r Role) String() string { return names[r] }

// Parse finds a role by its name. What it does not know only root may do.
func Parse(name string) Role {
	for r := ReadOnly; r < LocalRoot; r++ {
		if names[r] == name {
			return r
		}
	}
	return LocalRoot
}

// Ref is the reference of the role's record.
func (r Role) Ref() api.RoleRef { return refOf(names[r]) }

// ByRef finds the role a reference names, None if it is no role.
func ByRef(ref api.RoleRef) Role {
	for r := ReadOnly; r < LocalRoot; r++ {
		if r.Ref() == ref {
			return r
		}
	}
	return None
}

// Highest is the union of what roles may do; references to anything but roles
// give nothing.
func Highest(refs []api.RoleRef) Role {
	best := None
	for _, ref := range refs {
		best = max(best, ByRef(ref))
	}
	return best
}

// uuidOf is the uuid of a role or permission. Clients keep those of the roles,
// and the description names pool-admin's as a default, so it has to be the MD5
// of the name as it always was.
func uuidOf(name string) string {
	sum := md5.Sum([]byte(name))
	h := hex.EncodeToString(sum[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func refOf(name string) api.RoleRef { return api.RoleRef("OpaqueRef:" + uuidOf(name)) }

// Check refuses a call that a role does not reach.
func Check(role Role, m *api.MessageInfo, args []api.Value) error {
	permission, least := needed(m, args)
	if role < least {
		return Denied(permission, least)
	}
	if m.Op == api.OpCreate || m.Name() == "create" {
		return checkNew(role, least, m, args)
	}
	return nil
}

// needed is the permission a call needs and the least role that has it. A call
// about a key with a permission of its own needs that one, be it easier or
// harder to get than the message's.
func needed(m *api.MessageInfo, args []api.Value) (string, Role) {
	permission, least := PermissionOf(m), Parse(m.Role)
	key, ok := keyOf(m, args)
	if !ok {
		return permission, least
	}
	if k := findKey(m, key); k != nil {
		return k.permission(m), k.role
	}
	return permission, least
}

// CheckKey refuses a change of one key by a message that replaces a whole map,
// where the key needs more than the message.
func CheckKey(role Role, m *api.MessageInfo, key string) error {
	if k := findKey(m, key); k != nil && role < k.role {
		return Denied(k.permission(m), k.role)
	}
	return nil
}

// CheckHTTP refuses the use of a stream that a role does not reach.
func CheckHTTP(role Role, action string) error {
	actions := api.HTTPActions()
	for i := range actions {
		if a := &actions[i]; a.Name == action {
			if least := Parse(a.Role); role < least {
				return Denied(a.Permission(), least)
			}
			return nil
		}
	}
	if role == LocalRoot {
		return nil
	}
	return Denied("http/"+strings.ToLower(action), LocalRoot)
}

// Denied is the refusal of a permission: it names the roles that have it.
func Denied(permission string, least Role) error {
	var have []string
	for r := max(least, ReadOnly); r < LocalRoot; r++ {
		have = append(have, r.String())
	}
	who := "root of this host"
	if len(have) > 0 {
		who = strings.Join(have, ", ")
	}
	return api.ErrRBACPermissionDenied(permission, fmt.Sprintf("the session lacks this permission; it belongs to: %s", who))
}

// PermissionOf is the permission a message needs.
func PermissionOf(m *api.MessageInfo) string { return strings.ToLower(m.Method) }
