package db

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"

	"cairn/golden"
	"cairn/toolstack/api"
)

// filled is a database with a relation, a record and a class of a later
// version, and something volatile.
func filled(t testing.TB) (*DB, *Memory) {
	t.Helper()
	engine := NewMemory()
	network := storeKey(key{api.ClassOf[api.Network](), "OpaqueRef:network"})
	err := engine.Commit(t.Context(), Batch{Puts: []Pair{
		{network, []byte(`{"v":2,"record":{"uuid":"n","name_label":"later","speed":[1,{"a":null}]}}`)},
		{"obj/Spaceship/OpaqueRef:1", []byte(`{"v":2,"record":{}}`)},
	}})
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(t.Context(), engine, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	err = d.Update(t.Context(), func(tx *Tx) error {
		vm, vif := api.NewVM(), api.NewVIF()
		vm.UUID, vm.NameLabel, vif.UUID = "v", "a VM", "i"
		vif.VM, vif.Network = "OpaqueRef:vm", "OpaqueRef:network"
		InsertAs(tx, "OpaqueRef:vm", vm)
		InsertAs(tx, "OpaqueRef:vif", vif)
		Insert(tx, api.NewTask())
		_, err := Edit(tx, api.NetworkRef("OpaqueRef:network"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return d, engine
}

func backup(t testing.TB, d *DB) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := d.Backup(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestBackupAndRestore(t *testing.T) {
	d, engine := filled(t)
	text := backup(t, d)
	restored := NewMemory()
	if err := Restore(t.Context(), restored, bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	for k, v := range engine.pairs {
		if k != generationKey && !bytes.Equal(restored.pairs[k], v) {
			t.Errorf("%s is\n%s\nwant\n%s", k, restored.pairs[k], v)
		}
	}
	if len(restored.pairs) != len(engine.pairs) {
		t.Errorf("%d pairs, want %d", len(restored.pairs), len(engine.pairs))
	}
	again := open(t, restored)
	if vm := get(t, again.Snapshot(), api.VMRef("OpaqueRef:vm")); len(vm.VIFs) != 1 {
		t.Errorf("VIFs are %v", vm.VIFs)
	}
	if again.Snapshot().Generation() <= d.Snapshot().Generation() {
		t.Error("generations go back")
	}
}

func TestRestoreRefuses(t *testing.T) {
	d, _ := filled(t)
	text := backup(t, d)
	refuse := func(what string, b []byte) {
		t.Helper()
		engine := NewMemory()
		if err := Restore(t.Context(), engine, bytes.NewReader(b)); !errors.Is(err, ErrDamaged) || len(engine.pairs) != 0 {
			t.Errorf("%s: %v, %d pairs written", what, err, len(engine.pairs))
		}
	}
	for n := range len(text) {
		if n%7 == 0 || n < 100 {
			refuse(fmt.Sprintf("the first %d bytes", n), text[:n])
			changed := bytes.Clone(text)
			changed[n] ^= 0x20
			refuse(fmt.Sprintf("byte %d changed", n), changed)
		}
	}
	refuse("one more byte", append(bytes.Clone(text), 0))
	_, full := filled(t)
	before := len(full.pairs)
	if err := Restore(t.Context(), full, bytes.NewReader(text)); !errors.Is(err, ErrNotEmpty) || len(full.pairs) != before {
		t.Errorf("into what is not empty: %v", err)
	}
}

func TestInterruptedRestore(t *testing.T) {
	d, _ := filled(t)
	text := backup(t, d)
	engine := NewMemory()
	boom := errors.New("boom")
	engine.Fail = func(b Batch) error {
		if len(b.Deletes) > 0 { // the last one
			return boom
		}
		return nil
	}
	if err := Restore(t.Context(), engine, bytes.NewReader(text)); !errors.Is(err, boom) {
		t.Fatal(err)
	}
	engine.Fail = nil
	engine.pairs["obj/VM/OpaqueRef:left"] = []byte(`{}`)
	if _, err := Open(t.Context(), engine, Options{}); !errors.Is(err, errRestoring) {
		t.Errorf("open after an interrupted restore: %v", err)
	}
	if err := Restore(t.Context(), engine, bytes.NewReader(text)); err != nil {
		t.Fatal(err)
	}
	if n := open(t, engine).Snapshot().Count(api.ClassOf[api.VM]()); n != 1 {
		t.Errorf("%d VMs after the second restore", n)
	}
}

func TestBackupStopsWithItsContext(t *testing.T) {
	d, _ := filled(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := d.Backup(ctx, &bytes.Buffer{}); !errors.Is(err, context.Canceled) {
		t.Errorf("backup: %v", err)
	}
}

func FuzzReadBackup(f *testing.F) {
	d, _ := filled(f)
	f.Add(backup(f, d))
	f.Add([]byte(backupMagic))
	f.Fuzz(func(t *testing.T, text []byte) {
		if pairs, err := readBackup(bytes.NewReader(text)); err != nil && (pairs != nil || !errors.Is(err, ErrDamaged)) {
			t.Errorf("%d pairs and %v", len(pairs), err)
		}
	})
}

// The stored form is a contract with the versions before and after: it changes
// only by adding members.
func TestStoredForm(t *testing.T) {
	_, engine := filled(t)
	got := engine.pairs["obj/VIF/OpaqueRef:vif"]
	golden.Equal(t, "testdata/vif.json", got)
}

// The version before reads a record of a later one and writes it back unharmed:
// unknown fields wherever they are, values of enumerations it does not know, and
// a field that is gone.
func TestRecordOfALaterVersion(t *testing.T) {
	engine := NewMemory()
	k := storeKey(key{api.ClassOf[api.VM](), "OpaqueRef:vm"})
	later := `{"v":2,"record":{"uuid":"u","power_state":"Dreaming","name_label":"x","later":{"deep":[{"x":1.5},"\u0000"]},"other_config":{"a":"b"},"last":null}}`
	engine.Commit(t.Context(), Batch{Puts: []Pair{{k, []byte(later)}}})
	for round := range 3 {
		d := open(t, engine)
		update(t, d, func(tx *Tx) {
			vm, err := Edit(tx, api.VMRef("OpaqueRef:vm"))
			if err != nil {
				t.Fatal(err)
			}
			vm.NameLabel = fmt.Sprint("round ", round)
		})
		d.Close()
	}
	v, err := api.ParseJSON(engine.pairs[k])
	if err != nil {
		t.Fatal(err)
	}
	if n, _ := v.Get("v"); n.Text != "2" {
		t.Errorf("version is %s", n.Text)
	}
	record, _ := v.Get("record")
	for name, want := range map[string]string{
		"power_state": `"Dreaming"`, "name_label": `"round 2"`, "later": `{"deep":[{"x":1.5},"\u0000"]}`,
		"other_config": `{"a":"b"}`, "last": `null`,
	} {
		got, ok := record.Get(name)
		if !ok || string(api.AppendJSONValue(nil, got)) != want {
			t.Errorf("%s is %s, want %s", name, api.AppendJSONValue(nil, got), want)
		}
	}
}

// What a full engine refuses is the documented error, and changes nothing.
func TestFullEngine(t *testing.T) {
	engine := NewMemory()
	d := open(t, engine)
	engine.Fail = func(Batch) error { return fmt.Errorf("%w: for a test", ErrFull) }
	err := d.Update(t.Context(), func(tx *Tx) error { Insert(tx, api.NewVM()); return nil })
	var known *api.Error
	if !errors.As(err, &known) || known.Code != api.CodeOutOfSpace || !errors.Is(err, ErrFull) {
		t.Errorf("error is %v", err)
	}
	if n := d.Snapshot().Count(api.ClassOf[api.VM]()); n != 0 {
		t.Errorf("%d VMs", n)
	}
}
