package db

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"

	"cairn/toolstack/api"
)

func open(t *testing.T, e Engine) *DB {
	t.Helper()
	d, err := Open(t.Context(), e, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func update(t *testing.T, d *DB, f func(tx *Tx)) {
	t.Helper()
	if err := d.Update(t.Context(), func(tx *Tx) error { f(tx); return nil }); err != nil {
		t.Fatal(err)
	}
}

func get[T any, P api.RecordPtr[T]](t *testing.T, r Reader, ref api.Ref[T]) *T {
	t.Helper()
	rec, err := Get[T, P](r, ref)
	if err != nil {
		t.Fatal(err)
	}
	return rec
}

func TestInsertEditDeleteSurviveReopening(t *testing.T) {
	engine := NewMemory()
	d := open(t, engine)
	var ref, gone api.VMRef
	update(t, d, func(tx *Tx) {
		vm := api.NewVM()
		vm.NameLabel = "one"
		vm.OtherConfig = map[string]string{"a": "b<&\"\x01"}
		ref, gone = Insert(tx, vm), Insert(tx, api.NewVM())
	})
	before := d.Snapshot()
	update(t, d, func(tx *Tx) {
		vm, err := Edit(tx, ref)
		if err != nil {
			t.Fatal(err)
		}
		vm.VCPUsMax = 1 << 62
		if err := Delete(tx, gone); err != nil {
			t.Fatal(err)
		}
	})
	if get(t, before, ref).VCPUsMax != 0 {
		t.Error("an old snapshot changed")
	}
	if _, err := Get(d.Snapshot(), gone); !errors.Is(err, api.ErrHandleInvalid("VM", string(gone))) && err.Error() != "HANDLE_INVALID [VM, "+string(gone)+"]" {
		t.Errorf("deleted record: %v", err)
	}
	want := get(t, d.Snapshot(), ref)
	d.Close()

	again := open(t, engine)
	got := get(t, again.Snapshot(), ref)
	if string(api.AppendRecord(nil, api.JSON, got)) != string(api.AppendRecord(nil, api.JSON, want)) {
		t.Errorf("came back as\n%s\nwant\n%s", api.AppendRecord(nil, api.JSON, got), api.AppendRecord(nil, api.JSON, want))
	}
	if again.Snapshot().Generation() <= before.Generation() {
		t.Errorf("generation went back from %d to %d", before.Generation(), again.Snapshot().Generation())
	}
	if found, err := ByUUID[api.VM](again.Snapshot(), got.UUID); err != nil || found != ref {
		t.Errorf("by uuid: %v, %v", found, err)
	}
	if refs := ByName[api.VM](again.Snapshot(), "one"); !slices.Equal(refs, []api.VMRef{ref}) {
		t.Errorf("by name: %v", refs)
	}
}

func TestFind(t *testing.T) {
	d := open(t, NewMemory())
	var vm api.VMRef
	var sr api.SRRef
	update(t, d, func(tx *Tx) { vm, sr = Insert(tx, api.NewVM()), Insert(tx, api.NewSR()) })
	uuid := get(t, d.Snapshot(), vm).UUID
	for text, want := range map[string]string{
		string(vm): "", uuid: "",
		string(sr): "HANDLE_INVALID [VM, " + string(sr) + "]", "OpaqueRef:none": "HANDLE_INVALID [VM, OpaqueRef:none]", api.NullRef: "HANDLE_INVALID [VM, OpaqueRef:NULL]",
		"none": "UUID_INVALID [VM, none]", get(t, d.Snapshot(), sr).UUID: "UUID_INVALID [VM, " + get(t, d.Snapshot(), sr).UUID + "]", "": "UUID_INVALID [VM, ]",
	} {
		ref, record, err := Find[api.VM](d.Snapshot(), text)
		if want != "" {
			if err == nil || err.Error() != want {
				t.Errorf("%q: %v, want %s", text, err, want)
			}
			continue
		}
		if err != nil || ref != vm || record != get(t, d.Snapshot(), vm) {
			t.Errorf("%q: %s, %v", text, ref, err)
		}
	}
}

func TestRelationsAreKept(t *testing.T) {
	engine := NewMemory()
	d := open(t, engine)
	var vm, other api.VMRef
	var vbd1, vbd2 api.VBDRef
	update(t, d, func(tx *Tx) {
		vm, other = Insert(tx, api.NewVM()), Insert(tx, api.NewVM())
		r := api.NewVBD()
		r.VM = vm
		r2 := r.Clone()
		vbd1, vbd2 = Insert(tx, r), Insert(tx, r2)
	})
	check := func(ref api.VMRef, want ...api.VBDRef) {
		t.Helper()
		got := slices.Clone(get(t, d.Snapshot(), ref).VBDs)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("VBDs are %v, want %v", got, want)
		}
	}
	check(vm, vbd1, vbd2)
	update(t, d, func(tx *Tx) {
		r, _ := Edit(tx, vbd2)
		r.VM = other
		v, _ := Edit(tx, other)
		v.NameLabel = "other"
		v.VBDs = []api.VBDRef{"OpaqueRef:forged"}
	})
	check(vm, vbd1)
	check(other, vbd2)
	update(t, d, func(tx *Tx) { Delete(tx, vbd1) })
	check(vm)
	update(t, d, func(tx *Tx) {
		double := get(t, d.Snapshot(), other).Clone()
		double.UUID = ""
		Insert(tx, double)
	})
	for ref, r := range All[api.VM](d.Snapshot()) {
		if ref != other && len(r.VBDs) != 0 {
			t.Errorf("a copy of a record has the original's VBDs: %v", r.VBDs)
		}
	}
	d.Close()
	d = open(t, engine)
	check(other, vbd2)
}

func TestFailedTransactionChangesNothing(t *testing.T) {
	engine := NewMemory()
	d := open(t, engine)
	boom := errors.New("boom")
	err := d.Update(t.Context(), func(tx *Tx) error { Insert(tx, api.NewVM()); return boom })
	if err != boom {
		t.Errorf("error is %v", err)
	}
	engine.Fail = func(Batch) error { return boom }
	err = d.Update(t.Context(), func(tx *Tx) error { Insert(tx, api.NewVM()); return nil })
	if err != boom {
		t.Errorf("error is %v", err)
	}
	engine.Fail = nil
	update(t, d, func(tx *Tx) { Insert(tx, api.NewVM()) })
	if n := d.Snapshot().Count(api.ClassOf[api.VM]()); n != 1 {
		t.Errorf("%d records after one good transaction", n)
	}
}

func TestVolatileClassesStayInMemory(t *testing.T) {
	engine := NewMemory()
	d := open(t, engine)
	update(t, d, func(tx *Tx) { Insert(tx, api.NewTask()) })
	d.Close()
	if n := open(t, engine).Snapshot().Count(api.ClassOf[api.Task]()); n != 0 {
		t.Errorf("%d tasks came back", n)
	}
}

func TestUnknownMembersAreKept(t *testing.T) {
	engine := NewMemory()
	ref := api.NewRef[api.VM]()
	k := storeKey(key{api.ClassOf[api.VM](), string(ref)})
	engine.Commit(t.Context(), Batch{Puts: []Pair{
		{k, []byte(`{"v":9,"new":1,"record":{"uuid":"u","from_the_future":{"a":[1,true,null,"x"]},"name_label":"old"}}`)},
		{"obj/Spaceship/OpaqueRef:1", []byte(`{}`)},
	}})
	d := open(t, engine)
	update(t, d, func(tx *Tx) {
		vm, _ := Edit(tx, ref)
		vm.NameLabel = "new"
	})
	text := string(engine.pairs[k])
	v, err := api.ParseJSON([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	rec, _ := v.Get("record")
	future, ok := rec.Get("from_the_future")
	if name, _ := rec.Get("name_label"); !ok || name.Text != "new" || string(api.AppendJSONValue(nil, future)) != `{"a":[1,true,null,"x"]}` {
		t.Errorf("stored as %s", text)
	}
	if engine.pairs["obj/Spaceship/OpaqueRef:1"] == nil {
		t.Error("an object of an unknown class was dropped")
	}
}

func TestFeedCoalesces(t *testing.T) {
	d := open(t, NewMemory())
	w := d.Watch()
	defer w.Close()
	start := d.Snapshot().Generation()
	var kept, brief api.NetworkRef
	update(t, d, func(tx *Tx) { kept, brief = Insert(tx, api.NewNetwork()), Insert(tx, api.NewNetwork()) })
	middle := d.Snapshot().Generation()
	update(t, d, func(tx *Tx) { n, _ := Edit(tx, kept); n.MTU = 9000 })
	update(t, d, func(tx *Tx) { Delete(tx, brief) })
	<-w.C()
	_, changes, lost := w.Changes()
	if lost || len(changes) != 1 || changes[0].Op != Add || changes[0].Ref != string(kept) {
		t.Errorf("from the start: %+v", changes)
	}
	_, changes, _ = d.Since(middle)
	if len(changes) != 2 || changes[0].Op != Mod || changes[1].Op != Del {
		t.Errorf("from the middle: %+v", changes)
	}
	if _, _, ok := d.Since(start - 1); ok {
		t.Error("the feed claims to know an earlier life")
	}
}

// Readers run beside writers without locks; the race detector watches, and each
// snapshot must be consistent in itself.
func TestReadersSeeWholeTransactions(t *testing.T) {
	d := open(t, NewMemory())
	var vm api.VMRef
	update(t, d, func(tx *Tx) { vm = Insert(tx, api.NewVM()) })
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for ctx.Err() == nil {
				s := d.Snapshot()
				v, err := Get(s, vm)
				if err != nil || len(v.VIFs) != s.Count(api.ClassOf[api.VIF]()) {
					t.Errorf("%v: %d VIFs on the VM, %d in all", err, len(v.VIFs), s.Count(api.ClassOf[api.VIF]()))
					return
				}
			}
		})
	}
	var writers sync.WaitGroup
	for range 4 {
		writers.Go(func() {
			for range 50 {
				d.Update(ctx, func(tx *Tx) error {
					r := api.NewVIF()
					r.VM = vm
					Insert(tx, r)
					return nil
				})
			}
		})
	}
	writers.Wait()
	stop()
	wg.Wait()
	if n := len(get(t, d.Snapshot(), vm).VIFs); n != 200 {
		t.Errorf("%d VIFs", n)
	}
}

// No two objects of a class have one uuid: a transaction that would make them so
// changes nothing. One that frees a uuid may give it away.
func TestOneObjectPerUUID(t *testing.T) {
	d := open(t, NewMemory())
	named := func(uuid string) *api.VM {
		vm := api.NewVM()
		vm.UUID = uuid
		return vm
	}
	var one, two api.VMRef
	update(t, d, func(tx *Tx) { one, two = Insert(tx, named("a")), Insert(tx, named("b")) })
	before := d.Snapshot()
	for what, f := range map[string]func(tx *Tx) error{
		"an insert": func(tx *Tx) error { Insert(tx, named("a")); return nil },
		"two inserts": func(tx *Tx) error {
			Insert(tx, named("c"))
			Insert(tx, named("c"))
			return nil
		},
		"an edit": func(tx *Tx) error {
			vm, err := Edit(tx, two)
			vm.UUID = "a"
			return err
		},
		"an insert beside an edit": func(tx *Tx) error {
			vm, err := Edit(tx, two)
			vm.UUID = "c"
			Insert(tx, named("c"))
			return err
		},
	} {
		if err := d.Update(t.Context(), f); !errors.Is(err, ErrDuplicate) {
			t.Errorf("%s: %v", what, err)
		}
		if d.Snapshot() != before {
			t.Errorf("%s changed something", what)
		}
	}
	update(t, d, func(tx *Tx) {
		vm, err := Edit(tx, two)
		if err != nil {
			t.Fatal(err)
		}
		vm.UUID = "a"
		if err := Delete(tx, one); err != nil {
			t.Error(err)
		}
		one = Insert(tx, named("b"))
		network := api.NewNetwork()
		network.UUID = "a" // of another class
		Insert(tx, network)
	})
	for uuid, ref := range map[string]api.VMRef{"a": two, "b": one} {
		if found, err := ByUUID[api.VM](d.Snapshot(), uuid); err != nil || found != ref {
			t.Errorf("%s: %v, %v", uuid, found, err)
		}
	}
}
