package storage

import (
	"maps"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// ours are keys of a VDI's sm_config that say where its bytes are and who has
// them. Whoever wrote them could lose a disk.
func ours(key string) bool {
	return key == parentKey || key == formatKey || key == MarkKey || strings.HasPrefix(key, hostKey) || strings.HasPrefix(key, "cairn:")
}

// publicConfig is what of a client's sm_config is kept.
func publicConfig(given map[string]string) map[string]string {
	c := map[string]string{}
	for key, value := range given {
		if !ours(key) {
			c[key] = value
		}
	}
	return c
}

// registerConfig binds the changes of sm_config that clients may make: to the keys
// that are not ours. Those they send with the rest, as they read them, stay as
// they are.
func (m *Manager) registerConfig(r *api.Registry) {
	change := func(f func(v *api.VDI, ref api.VDIRef, args []api.Value) error) api.Handler {
		return func(c *api.Call, args []api.Value) (api.Result, error) {
			ref := api.VDIRef(api.ParseRef(args[0].Text))
			return api.Void{}, db.Modify(c, m.cfg.DB, ref, func(_ *db.Tx, v *api.VDI) error { return f(v, ref, args[1:]) })
		}
	}
	r.Override("VDI.set_sm_config", change(func(v *api.VDI, _ api.VDIRef, args []api.Value) error {
		given := map[string]string{}
		for i, key := range args[0].Keys {
			given[key] = args[0].Items[i].Text
		}
		kept := maps.Clone(v.SMConfig)
		maps.DeleteFunc(kept, func(key, _ string) bool { return !ours(key) })
		v.SMConfig = publicConfig(given)
		maps.Copy(v.SMConfig, kept)
		return nil
	}))
	r.Override("VDI.add_to_sm_config", change(func(v *api.VDI, ref api.VDIRef, args []api.Value) error {
		key := args[0].Text
		if _, there := v.SMConfig[key]; there {
			return api.ErrMapDuplicateKey("VDI", "sm_config", ref.String(), key)
		}
		if ours(key) {
			return api.ErrInvalidValue("key", key)
		}
		v.SMConfig = maps.Clone(v.SMConfig)
		if v.SMConfig == nil {
			v.SMConfig = map[string]string{}
		}
		v.SMConfig[key] = args[1].Text
		return nil
	}))
	r.Override("VDI.remove_from_sm_config", change(func(v *api.VDI, _ api.VDIRef, args []api.Value) error {
		if ours(args[0].Text) {
			return api.ErrInvalidValue("key", args[0].Text)
		}
		v.SMConfig = maps.Clone(v.SMConfig)
		delete(v.SMConfig, args[0].Text)
		return nil
	}))
}
