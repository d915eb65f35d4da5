package rbac

import (
	"slices"
	"strings"

	"cairn/toolstack/api"
)

// mapKey is a key of a map that needs a role of its own. A name that ends in *
// stands for all keys that begin like it. Keys compare without case.
type mapKey struct {
	class, field, name string
	role               Role
}

// mapKeys are the keys by which clients put objects into folders, give them
// fields of their own and mark their work: a VM operator may do that to objects
// that are otherwise beyond him. Giving a VM a device of the host is the
// opposite case.
var mapKeys = [...]mapKey{
	{"VM", "other_config", "pci", PoolAdmin},
	{"VM", "other_config", "folder", VMOperator},
	{"VM", "other_config", "XenCenter.CustomFields.*", VMOperator},
	{"VDI", "other_config", "folder", VMOperator},
	{"VDI", "other_config", "XenCenter.CustomFields.*", VMOperator},
	{"SR", "other_config", "folder", VMOperator},
	{"SR", "other_config", "XenCenter.CustomFields.*", VMOperator},
	{"host", "other_config", "folder", VMOperator},
	{"host", "other_config", "XenCenter.CustomFields.*", VMOperator},
	{"pool", "other_config", "folder", VMOperator},
	{"pool", "other_config", "XenCenter.CustomFields.*", VMOperator},
	{"pool", "other_config", "EMPTY_FOLDERS", VMOperator},
	{"network", "other_config", "folder", VMOperator},
	{"network", "other_config", "XenCenter.CustomFields.*", VMOperator},
	{"network", "other_config", "XenCenterCreateInProgress", VMOperator},
	{"task", "other_config", "applies_to", VMOperator},
	{"task", "other_config", "XenCenterUUID", VMOperator},
	{"task", "other_config", "XenCenterMeddlingActionTitle", VMOperator},
}

// covers reports whether a key is this one.
func (k *mapKey) covers(key string) bool {
	if prefix, ok := strings.CutSuffix(k.name, "*"); ok {
		return len(key) >= len(prefix) && strings.EqualFold(key[:len(prefix)], prefix)
	}
	return strings.EqualFold(key, k.name)
}

// permission is the permission to change the key by a message.
func (k *mapKey) permission(m *api.MessageInfo) string {
	return PermissionOf(m) + "/key:" + strings.ToLower(k.name)
}

// changes reports whether a message adds to or removes from the map the key
// belongs to, or replaces it.
func (k *mapKey) changes(m *api.MessageInfo) bool {
	if m.Class.Name != k.class {
		return false
	}
	verb, ok := strings.CutSuffix(m.Name(), k.field)
	return ok && (verb == "add_to_" || verb == "remove_from_" || verb == "set_")
}

func findKey(m *api.MessageInfo, key string) *mapKey {
	for i := range mapKeys {
		if k := &mapKeys[i]; k.changes(m) && k.covers(key) {
			return k
		}
	}
	return nil
}

// keyOf is the key a message adds or removes, if it is one that does so,
// whether it is served from the tables or by hand.
func keyOf(m *api.MessageInfo, args []api.Value) (string, bool) {
	name := m.Name()
	if !strings.HasPrefix(name, "add_to_") && !strings.HasPrefix(name, "remove_from_") {
		return "", false
	}
	if len(args) < 2 || len(m.Params) < 2 || m.Params[1].Name != "key" {
		return "", false
	}
	return args[1].Text, true
}

// Guarded returns the keys a message that replaces a map must ask CheckKey for:
// those whose value it changes and that have a permission of their own. old and
// new are the map's values as the wire has them.
func Guarded(m *api.MessageInfo, old, replacement *api.Value) []string {
	var keys []string
	add := func(from, to *api.Value) {
		for i, key := range from.Keys {
			other, ok := to.Get(key)
			if findKey(m, key) != nil && (!ok || other.Text != from.Items[i].Text) {
				keys = append(keys, key)
			}
		}
	}
	add(old, replacement)
	add(replacement, old)
	return keys
}

// IsMapSetter reports whether a message replaces a map that has keys with
// permissions of their own, and the name of the field.
func IsMapSetter(m *api.MessageInfo) (field string, ok bool) {
	if !strings.HasPrefix(m.Name(), "set_") {
		return "", false
	}
	for i := range mapKeys {
		if mapKeys[i].changes(m) {
			return mapKeys[i].field, true
		}
	}
	return "", false
}

// checkNew refuses to make an object with a key that takes more than making the
// object does.
func checkNew(role, least Role, m *api.MessageInfo, args []api.Value) error {
	for i := range mapKeys {
		k := &mapKeys[i]
		if k.class != m.Class.Name || k.role <= least || role >= k.role || len(args) == 0 {
			continue
		}
		config, ok := args[0].Get(k.field)
		if !ok {
			continue
		}
		if slices.ContainsFunc(config.Keys, k.covers) {
			return Denied(k.permission(api.FindMessage(k.class+".add_to_"+k.field)), k.role)
		}
	}
	return nil
}
