package metrics

import (
	"context"
	"errors"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

func rules(variables ...string) string {
	return "<config><variable>" + strings.Join(variables, "</variable><variable>") + "</variable></config>"
}

func limit(name, level string) string {
	return `<name value="` + name + `"/><alarm_trigger_level value="` + level + `"/>`
}

// watchAll sets the rules of an object of the bench.
func watchAll[T any, P api.RecordPtr[T]](b *bench, ref api.Ref[T], config func(*T) *map[string]string, text string) {
	b.Helper()
	b.update(func(tx *db.Tx) {
		r, err := db.Edit[T, P](tx, ref)
		must(b, err)
		*config(r) = map[string]string{perfmonKey: text}
	})
}

// run lets time pass in which a VM uses what use says.
func (b *bench) run(uuid, tap string, minutes int) {
	for range minutes * 12 {
		b.guests.stats = []hypervisor.Stats{use(uuid, tap, 5*b.ticks)}
		b.tick()
	}
}

func (b *bench) messages() (all []*api.Message) {
	for _, x := range db.All[api.Message](b.DB.Snapshot()) {
		all = append(all, x)
	}
	return all
}

// TestAlarms: rules of a VM, the host and a repository, each with the message its users
// expect.
func TestAlarms(t *testing.T) {
	b := newBench(t)
	ref, uuid, tap := b.vm()
	sr, err := db.Get(b.DB.Snapshot(), b.sr)
	must(t, err)
	watchAll(b, ref, func(r *api.VM) *map[string]string { return &r.OtherConfig },
		rules(limit("cpu_usage", "0.5"), limit("network_usage", "250")+`<alarm_priority value="2"/>`, limit("disk_usage", "1E9"), limit("memory_internal_free", "1000000")))
	watchAll(b, b.Host, func(r *api.Host) *map[string]string { return &r.OtherConfig }, rules(limit("cpu_usage", "0.9"), limit("mem_usage", "0.4"), limit("memory_free_kib", "1")))
	watchAll(b, b.sr, func(r *api.SR) *map[string]string { return &r.OtherConfig }, rules(limit("physical_utilisation", "0.4"), limit("sr_io_throughput_total_per_host", "2.5")))
	b.run(uuid, tap, 3)
	want := map[string]string{
		"3 VM " + uuid + " value: 0.625000 cpu_usage": "", "2 VM " + uuid + " value: 300.000000 network_usage": "",
		"3 VM " + uuid + " value: 524288.000000 memory_internal_free": "", "3 Host " + b.host + " value: 0.500000 mem_usage": "",
		"3 SR " + sr.UUID + " value: 0.500000 physical_utilisation":                   "",
		"3 Host " + b.host + " value: 3.000000 sr_io_throughput_total_" + sr.UUID[:8]: "",
	}
	for _, x := range b.messages() {
		lines := strings.Split(x.Body, "\n")
		_, name, _ := strings.Cut(lines[3], `"`)
		key := strings.Join([]string{string('0' + rune(x.Priority)), string(x.Cls), x.ObjUUID, lines[0], strings.TrimSuffix(name, `"/>`)}, " ")
		if _, ok := want[key]; !ok || x.Name != "ALARM" || lines[1] != "config:" || lines[2] != "<variable>" {
			t.Errorf("%s: %+v", key, x)
		}
		delete(want, key)
	}
	for key := range want {
		t.Errorf("no alarm %s", key)
	}
}

// TestAlarmsOfTheHostItself: its own system is a VM to those who look at it.
func TestAlarmsOfTheHostItself(t *testing.T) {
	b := newBench(t)
	b.m.cfg.FileSystems = map[string]string{"fs_usage": t.TempDir(), "log_fs_usage": "/nowhere"}
	var control api.VMRef
	b.update(func(tx *db.Tx) {
		vm := api.NewVM()
		vm.UUID, vm.IsControlDomain, vm.OtherConfig = api.NewUUID(), true, map[string]string{perfmonKey: rules(limit("mem_usage", "0.4"), limit("fs_usage", "-1"), limit("log_fs_usage", "-1"))}
		control = db.Insert(tx, vm)
		h, err := db.Edit(tx, b.Host)
		must(t, err)
		h.ControlDomain = control
	})
	for range 14 {
		b.tick()
	}
	vm, err := db.Get(b.DB.Snapshot(), control)
	must(t, err)
	seen := ""
	for _, x := range b.messages() {
		for _, name := range []string{"mem_usage", "log_fs_usage", "fs_usage"} {
			if strings.Contains(x.Body, `"`+name+`"`) {
				seen += name + " "
			}
		}
		if x.Cls != api.ClsVM || x.ObjUUID != vm.UUID || !strings.HasPrefix(x.Body, "value: 0.") {
			t.Errorf("%+v", x)
		}
	}
	if seen != "mem_usage fs_usage " && seen != "fs_usage mem_usage " {
		t.Errorf("alarms of %s", seen)
	}
}

// TestAlarmOnce: for as long as it inhibits, over a restart too; a changed rule is another.
func TestAlarmOnce(t *testing.T) {
	b := newBench(t)
	ref, uuid, tap := b.vm()
	config := func(r *api.VM) *map[string]string { return &r.OtherConfig }
	watchAll(b, ref, config, rules(limit("cpu_usage", "0.5")+`<alarm_auto_inhibit_period value="600"/>`))
	b.m.cfg.Alerts = stamped{b}
	b.run(uuid, tap, 5)
	if n := len(b.messages()); n != 1 {
		t.Fatalf("%d alarms after five minutes", n)
	}
	b.m.SaveAll()
	b.restart(b.DB)
	b.m.cfg.Alerts = stamped{b}
	b.run(uuid, tap, 5)
	if n := len(b.messages()); n != 1 {
		t.Errorf("%d alarms after a restart", n)
	}
	b.run(uuid, tap, 5)
	if n := len(b.messages()); n != 2 {
		t.Errorf("%d alarms after a quarter of an hour", n)
	}
	watchAll(b, ref, config, rules(limit("cpu_usage", "0.6")))
	b.run(uuid, tap, 2)
	if n := len(b.messages()); n != 3 {
		t.Errorf("%d alarms after the rule was changed", n)
	}
}

// TestBadRules: one line, and nothing else.
func TestBadRules(t *testing.T) {
	b := newBench(t)
	watchAll(b, b.Host, func(r *api.Host) *map[string]string { return &r.OtherConfig }, "<config><variable>")
	for range 30 {
		b.tick()
	}
	if n := strings.Count(b.log.String(), "perfmon-refused"); n != 1 || len(b.messages()) != 0 {
		t.Errorf("log:\n%s", &b.log)
	}
}

// TestNobodyListens: an alarm that cannot be written is tried again, and costs no figure.
func TestNobodyListens(t *testing.T) {
	b := newBench(t)
	watchAll(b, b.Host, func(r *api.Host) *map[string]string { return &r.OtherConfig }, rules(limit("mem_usage", "0.1")))
	b.Engine.Fail = func(db.Batch) error { return errors.New("no disk") }
	for range 30 {
		b.tick()
	}
	b.want(Owner{HostKind, b.host}, map[string]float64{"cpu0": 0.5})
	b.Engine.Fail = nil
	for range 13 {
		b.tick()
	}
	if n := len(b.messages()); n != 1 {
		t.Errorf("%d alarms\n%s", n, &b.log)
	}
}

// stamped raises alarms at the bench's time.
type stamped struct{ *bench }

func (s stamped) RaiseAt(ctx context.Context, name string, priority int64, cls api.Cls, uuid, body string) (ref api.MessageRef, err error) {
	return ref, s.DB.Update(ctx, func(tx *db.Tx) error {
		ref = db.Insert(tx, &api.Message{UUID: api.NewUUID(), Name: name, Priority: priority, Cls: cls, ObjUUID: uuid, Body: body, Timestamp: s.now})
		return nil
	})
}
