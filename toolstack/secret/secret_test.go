package secret

import (
	"errors"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/wire/wiretest"
)

func TestSecrets(t *testing.T) {
	s := wiretest.New(t, Register)
	var ref, value, uuid, again string
	var all []string
	s.Must(&ref, "secret.create", map[string]any{"value": "open sesame", "other_config": map[string]string{"k": "v"}})
	s.Must(&value, "secret.get_value", ref)
	if value != "open sesame" {
		t.Errorf("value %q", value)
	}
	s.Must(nil, "secret.set_value", ref, "other")
	s.Must(&value, "secret.get_value", ref)
	s.Must(&uuid, "secret.get_uuid", ref)
	s.Must(&again, "secret.get_by_uuid", uuid)
	s.Must(&all, "secret.get_all")
	if value != "other" || again != ref || len(all) != 1 || all[0] != ref {
		t.Errorf("value %q, by uuid %s, all %v; want %s", value, again, all, ref)
	}
	s.Must(nil, "secret.add_to_other_config", ref, "l", "w")
	s.Must(nil, "secret.remove_from_other_config", ref, "k")
	var record struct {
		UUID, Value string
		OtherConfig map[string]string `json:"other_config"`
	}
	s.Must(&record, "secret.get_record", ref)
	if record.UUID != uuid || record.Value != "other" || len(record.OtherConfig) != 1 || record.OtherConfig["l"] != "w" {
		t.Errorf("record %+v", record)
	}
	s.Must(nil, "secret.set_other_config", ref, map[string]string{})
	var config map[string]string
	s.Must(&config, "secret.get_other_config", ref)
	records := map[string]any{}
	s.Must(&records, "secret.get_all_records")
	if len(config) != 0 || len(records) != 1 {
		t.Errorf("other_config %v, records %v", config, records)
	}
	s.Must(nil, "secret.destroy", ref)
	if _, err := s.Call("secret.get_value", ref); err == nil {
		t.Error("a destroyed secret is told")
	}
	s.Covers("secret.create", "secret.get_value", "secret.set_value", "secret.get_uuid", "secret.get_by_uuid", "secret.get_all",
		"secret.add_to_other_config", "secret.remove_from_other_config", "secret.get_record", "secret.set_other_config",
		"secret.get_other_config", "secret.get_all_records", "secret.destroy")
}

func TestIntroduce(t *testing.T) {
	s := wiretest.New(t, Register)
	const uuid = "5bd9a81c-72a6-4a9e-8d2f-6f3c7b0c1d2e"
	var ref, value, is string
	s.Must(&ref, "secret.introduce", uuid, "open sesame")
	s.Must(&value, "secret.get_value", ref)
	s.Must(&is, "secret.get_uuid", ref)
	if value != "open sesame" || is != uuid {
		t.Errorf("value %q, uuid %q", value, is)
	}
	for _, bad := range []string{uuid, ""} {
		_, err := s.Call("secret.introduce", bad, "x", map[string]string{})
		var known *api.Error
		if !errors.As(err, &known) || known.Code != api.CodeUUIDInvalid {
			t.Errorf("introduced %q: %v", bad, err)
		}
	}
	s.Covers("secret.introduce")
}

// TestWhoMaySeeValues: reading a value takes a role, and events do not tell it.
func TestWhoMaySeeValues(t *testing.T) {
	for _, method := range []string{"secret.get_value", "secret.get_record", "secret.get_all_records", "secret.set_value", "secret.create", "secret.introduce"} {
		if role := api.FindMessage(method).Role; role != "pool-operator" {
			t.Errorf("%s may be sent by %s", method, role)
		}
	}
	s := wiretest.New(t, nil)
	s.Must(nil, "secret.create", map[string]any{"value": "open sesame"})
	answer, err := s.Call("event.from", []string{"*", "secret"}, "", 0.0)
	if err != nil || strings.Contains(string(answer), "open sesame") {
		t.Errorf("%v, %s", err, answer)
	}
}
