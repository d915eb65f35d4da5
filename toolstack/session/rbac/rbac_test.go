package rbac

import (
	"errors"
	"slices"
	"testing"

	"cairn/toolstack/api"
)

// args makes the arguments of a message about a key of a map.
func args(key string) []api.Value {
	text := func(s string) api.Value { return api.Value{Kind: api.StringValue, Text: s} }
	return []api.Value{text("OpaqueRef:x"), text(key), text("value")}
}

func permissionDenied(err error) string {
	var known *api.Error
	if !errors.As(err, &known) || known.Code != api.CodeRBACPermissionDenied {
		return ""
	}
	return known.Params[0]
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		role           Role
		message, key   string
		deniedByReason string // the permission, "" for allowed
	}{
		{ReadOnly, "VM.get_all_records", "", ""},
		{ReadOnly, "VM.start", "", "vm.start"},
		{VMOperator, "VM.start", "", ""},
		{VMOperator, "VM.clone", "", "vm.clone"},
		{VMAdmin, "VM.clone", "", ""},
		{VMAdmin, "subject.create", "", "subject.create"},
		{PoolOperator, "subject.create", "", "subject.create"},
		{PoolAdmin, "subject.create", "", ""},
		{PoolAdmin, "session.change_password", "", "session.change_password"},
		{LocalRoot, "session.change_password", "", ""},
		{None, "VM.get_all_records", "", "vm.get_all_records"},

		{VMOperator, "VM.add_to_other_config", "folder", ""},
		{VMOperator, "VM.add_to_other_config", "other", "vm.add_to_other_config"},
		{VMAdmin, "VM.add_to_other_config", "other", ""},
		{VMAdmin, "VM.add_to_other_config", "pci", "vm.add_to_other_config/key:pci"},
		{VMAdmin, "VM.remove_from_other_config", "PCI", "vm.remove_from_other_config/key:pci"},
		{PoolAdmin, "VM.add_to_other_config", "pci", ""},
		{VMOperator, "pool.add_to_other_config", "XenCenter.CustomFields.Owner", ""},
		{ReadOnly, "pool.add_to_other_config", "xencenter.customfields.owner", "pool.add_to_other_config/key:xencenter.customfields.*"},
		{VMOperator, "pool.add_to_other_config", "xencenter.customfield", "pool.add_to_other_config"},
		{ReadOnly, "task.add_to_other_config", "mine", ""},
		{ReadOnly, "task.add_to_other_config", "applies_to", "task.add_to_other_config/key:applies_to"},
		{VMOperator, "network.remove_from_other_config", "XenCenterCreateInProgress", ""},
		{VMOperator, "pool.add_to_gui_config", "folder", ""}, // a map without keys of their own
	} {
		m := api.FindMessage(c.message)
		if m == nil {
			t.Fatalf("no message %s", c.message)
		}
		if got := permissionDenied(Check(c.role, m, args(c.key))); got != c.deniedByReason {
			t.Errorf("%v, %s %q: denied %q, want %q", c.role, c.message, c.key, got, c.deniedByReason)
		}
	}
}

// Every message is held to the minimum the description gives it, for each role.
func TestEveryMessageHasItsMinimum(t *testing.T) {
	messages := api.Messages()
	for i := range messages {
		m := &messages[i]
		for r := None; r <= LocalRoot; r++ {
			if allowed := Check(r, m, nil) == nil; allowed != (r >= Parse(m.Role)) {
				t.Errorf("%s for %q: allowed is %v with minimum %s", m.Method, r, allowed, m.Role)
			}
		}
	}
	for _, a := range api.HTTPActions() {
		for r := None; r <= LocalRoot; r++ {
			if allowed := CheckHTTP(r, a.Name) == nil; allowed != (r >= Parse(a.Role)) {
				t.Errorf("%s for %q: allowed is %v with minimum %s", a.Name, r, allowed, a.Role)
			}
		}
	}
	if CheckHTTP(PoolAdmin, "no_such_action") == nil {
		t.Error("an unknown stream is open")
	}
}

// A constructor must not give a new object what nobody may add to it later.
func TestConstructorsRespectKeys(t *testing.T) {
	config := api.Value{Kind: api.StructValue, Keys: []string{"PCI"}, Items: []api.Value{{Kind: api.StringValue, Text: "0/0000:01:00.0"}}}
	record := []api.Value{{Kind: api.StructValue, Keys: []string{"other_config"}, Items: []api.Value{config}}}
	create := api.FindMessage("VM.create")
	if got := permissionDenied(Check(VMAdmin, create, record)); got != "vm.add_to_other_config/key:pci" {
		t.Errorf("denied %q", got)
	}
	if err := Check(PoolAdmin, create, record); err != nil {
		t.Error(err)
	}
	record[0].Items[0].Keys[0] = "folder"
	if err := Check(VMAdmin, create, record); err != nil {
		t.Error(err)
	}
}

func TestRoles(t *testing.T) {
	if ref := PoolAdmin.Ref(); ref != "OpaqueRef:0165f154-ba3e-034e-6b27-5d271af109ba" {
		t.Errorf("pool-admin is %s, which the description's default for subjects is not", ref)
	}
	for r := ReadOnly; r < LocalRoot; r++ {
		if Parse(r.String()) != r || ByRef(r.Ref()) != r || Find(r.Ref()).NameLabel != r.String() {
			t.Errorf("%v is not found by its name or reference", r)
		}
		if r > ReadOnly && len(Permissions(r)) <= len(Permissions(r-1)) {
			t.Errorf("%v has no more permissions than %v", r, r-1)
		}
	}
	if Highest([]api.RoleRef{VMAdmin.Ref(), ReadOnly.Ref(), "OpaqueRef:x", refOf("vm.start")}) != VMAdmin || Highest(nil) != None {
		t.Error("the union of roles is wrong")
	}
	if ByRef(refOf("vm.start")) != None || ByRef("") != None {
		t.Error("a permission is taken for a role")
	}
}

func TestPermissions(t *testing.T) {
	all := Permissions(PoolAdmin)
	for _, name := range []string{"vm.start", "http/get_export", "vm.add_to_other_config/key:pci", "pool.remove_from_other_config/key:empty_folders", "task.cancel/any"} {
		if _, ok := slices.BinarySearch(all, name); !ok {
			t.Errorf("pool-admin lacks %s", name)
		}
	}
	if slices.Contains(Permissions(VMOperator), "vm.add_to_other_config/key:pci") || slices.Contains(all, "session.change_password") {
		t.Error("a role has a permission that is beyond it")
	}
	if len(Holders("vm.start")) != 5 || len(Holders("vm.clone")) != 4 || Holders("nothing") != nil || len(Holders("session.change_password")) != 0 {
		t.Error("the holders of a permission are wrong")
	}
	seen := map[api.RoleRef]bool{}
	for _, r := range Records() {
		if seen[r.Ref] {
			t.Errorf("%s is there twice", r.NameLabel)
		}
		seen[r.Ref] = true
	}
	for _, ref := range Find(PoolAdmin.Ref()).Subroles {
		if !seen[ref] {
			t.Errorf("subrole %s of pool-admin is no record", ref)
		}
	}
	t.Logf("%d permissions", len(all))
}

func TestGuarded(t *testing.T) {
	set := func(kv ...string) *api.Value {
		v := &api.Value{Kind: api.StructValue}
		for i := 0; i < len(kv); i += 2 {
			v.Keys, v.Items = append(v.Keys, kv[i]), append(v.Items, api.Value{Kind: api.StringValue, Text: kv[i+1]})
		}
		return v
	}
	m := api.FindMessage("VM.set_other_config")
	for _, c := range []struct {
		old, new *api.Value
		want     []string
	}{
		{set("pci", "1", "a", "2"), set("pci", "1", "a", "3"), nil},
		{set(), set("pci", "1"), []string{"pci"}},
		{set("pci", "1"), set(), []string{"pci"}},
		{set("pci", "1"), set("pci", "2"), []string{"pci", "pci"}},
	} {
		if got := Guarded(m, c.old, c.new); !slices.Equal(got, c.want) {
			t.Errorf("%v → %v: %v, want %v", c.old.Keys, c.new.Keys, got, c.want)
		}
	}
	if CheckKey(VMAdmin, m, "pci") == nil || CheckKey(PoolAdmin, m, "pci") != nil || CheckKey(VMAdmin, m, "x") != nil {
		t.Error("CheckKey is wrong")
	}
}
