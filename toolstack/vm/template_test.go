package vm_test

import (
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/vm"
	"cairn/toolstack/vm/template"
)

// templates are the default templates by key.
func (s *stack) templates() map[string]string {
	found := map[string]string{}
	for ref, r := range db.All[api.VM](s.DB.Snapshot()) {
		if r.IsDefaultTemplate {
			found[r.ReferenceLabel] = string(ref)
		}
	}
	return found
}

func TestDefaultTemplates(t *testing.T) {
	s := newStack(t)
	first := s.templates()
	for _, tt := range template.All() {
		r := s.record(first[tt.Key])
		if r.NameLabel != tt.Name || !r.IsATemplate || r.DomainType != api.DomainTypeHvm || r.Metrics.IsNull() {
			t.Errorf("%s: %+v", tt.Key, r)
		}
	}
	if len(first) != len(template.All())+1 {
		t.Errorf("%d templates", len(first))
	}
	var ref string
	s.Must(&ref, "VM.clone", first["windows-11"], "w")
	if r := s.record(ref); r.ReferenceLabel != "windows-11" || r.Platform["vtpm"] != "true" || r.OtherConfig[template.StampKey] != "" {
		t.Errorf("a VM of a template: %+v", r)
	}
}

// TestTemplatesOfAnUpgrade: what is missing is added, what was changed is left, and
// what is as an earlier version made it is renewed.
func TestTemplatesOfAnUpgrade(t *testing.T) {
	s := newStack(t)
	first := s.templates()
	s.Must(nil, "VM.set_name_label", first["debian-13"], "Ours")
	s.Must(nil, "VM.set_is_default_template", first["rocky-9"], false)
	s.Must(nil, "VM.destroy", first["rocky-9"])
	s.stop()
	s.run(vm.New(s.config))
	again := s.templates()
	if len(again) != len(first) || again["rocky-9"] == first["rocky-9"] || again["debian-13"] != first["debian-13"] {
		t.Errorf("%d templates before, %d after", len(first), len(again))
	}
	if r := s.record(again["debian-13"]); r.NameLabel != "Ours" {
		t.Errorf("a renamed template is called %s", r.NameLabel)
	}
}
