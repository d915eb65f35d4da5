package machine_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire/wiretest"
)

// together sends archives at once, of which none makes its first disk before all are
// planned, and returns the VMs that came of them and the errors of the others.
func (r *rig) together(query string, archives ...[]byte) (made, codes []string) {
	r.T.Helper()
	var planned, ended sync.WaitGroup
	planned.Add(len(archives))
	first := make(chan struct{}, len(archives))
	for range archives {
		first <- struct{}{}
	}
	r.disks.fail = func(what string, _ int64) error {
		if what == "open" {
			select {
			case <-first:
				planned.Done()
			default:
			}
			planned.Wait()
		}
		return nil
	}
	var mu sync.Mutex
	for _, b := range archives {
		ended.Go(func() {
			refs, err := r.importing(query, b)
			mu.Lock()
			defer mu.Unlock()
			made = append(made, refs...)
			if err != nil {
				codes = append(codes, strings.Fields(code(err))[0])
			}
		})
	}
	ended.Wait()
	r.disks.fail = nil
	return made, codes
}

// uuids are those of all there is, each once.
func (r *rig) uuids() map[string]int {
	n := map[string]int{}
	for _, class := range []*api.ClassInfo{api.ClassOf[api.VM](), api.ClassOf[api.VBD](), api.ClassOf[api.VIF](), api.ClassOf[api.Network]()} {
		r.DB.Snapshot().Objects(class, func(o *db.Object) bool { n[o.Record().GetUUID()]++; return true })
	}
	return n
}

// TestRestoredTogether: of restores of one VM that run at once, one makes it; the others
// are told that it is there, and leave nothing.
func TestRestoredTogether(t *testing.T) {
	for _, c := range []struct {
		name, query, code string
		here              bool // the VM is, before
	}{
		{"gone", "&restore=true", "VM_TO_IMPORT_IS_NOT_NEWER_VERSION", false},
		{"gone, by force", "&restore=true&force=true", "DUPLICATE_VM", false},
		{"here, by force", "&restore=true&force=true", "DUPLICATE_VM", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			from, _ := r.insert("web", nil)
			b := r.get("/export?ref=" + string(from))
			if !c.here {
				r.Must(nil, "VM.destroy", from)
			}
			disks := func() int { return r.DB.Snapshot().Count(api.ClassOf[api.VDI]()) }
			before := disks()
			made, codes := r.together(c.query, b, b, b, b)
			if len(made) != 1 || len(codes) != 3 {
				t.Fatalf("%v were made, the others are told %v", made, codes)
			}
			for _, code := range codes {
				if code != c.code {
					t.Errorf("told %s", code)
				}
			}
			for uuid, n := range r.uuids() {
				if n > 1 {
					t.Errorf("%d have the uuid %s", n, uuid)
				}
			}
			r.Until("only the disks of one restore", func() bool { return disks() == before+2 })
		})
	}
}

// TestNetworkMadeMeanwhile: VMs that come at once share the network that was missing.
func TestNetworkMadeMeanwhile(t *testing.T) {
	r := newRig(t)
	var archives [][]byte
	for i := range 3 {
		from, _ := r.insert(fmt.Sprint("web", i), nil)
		archives = append(archives, r.get("/export?ref="+string(from)))
		r.Must(nil, "VM.destroy", from)
	}
	uuid := wiretest.Get(r.Server, r.net).UUID
	r.update(func(tx *db.Tx) { must(t, db.Delete(tx, r.net)) })
	made, codes := r.together("&restore=true", archives...)
	if len(made) != 3 {
		t.Fatalf("%v were made, the others are told %v", made, codes)
	}
	network, err := db.ByUUID[api.Network](r.DB.Snapshot(), uuid)
	must(t, err)
	if n := len(wiretest.Get(r.Server, network).VIFs); n != 3 {
		t.Errorf("the network has %d NICs", n)
	}
}

// TestOthersTogether: nor do VMs of two uuids get what only one may have.
func TestOthersTogether(t *testing.T) {
	for name, c := range map[string]struct {
		edit func(*api.VM)
		code string
	}{
		"the seed of MACs": {func(vm *api.VM) { vm.UUID = api.NewUUID() }, "DUPLICATE_MAC_SEED"},
		"drives": {func(vm *api.VM) {
			vm.UUID, vm.OtherConfig = api.NewUUID(), map[string]string{"mac_seed": api.NewUUID()}
		}, "IMPORT_ERROR"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			from, _ := r.insert("web", nil)
			first := r.get("/export?ref=" + string(from))
			r.update(func(tx *db.Tx) {
				vm, err := db.Edit(tx, from)
				must(t, err)
				c.edit(vm)
			})
			second := r.get("/export?ref=" + string(from))
			r.Must(nil, "VM.destroy", from)
			made, codes := r.together("&restore=true", first, second)
			if len(made) != 1 || len(codes) != 1 || codes[0] != c.code {
				t.Errorf("%v were made, the others are told %v", made, codes)
			}
		})
	}
}
