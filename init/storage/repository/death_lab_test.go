//go:build lab

package repository

import (
	"context"
	"fmt"
	"testing"

	"cairn/init/hostd/client"
)

// errDeath is what hostd dies of in these tests: nothing of it runs any more, not
// even what would tidy up.
const errDeath = "killed"

// dieBefore lets hostd die before the nth command it runs, and reports whether it
// did.
func dieBefore(f *machine, n int, do func()) (died bool) {
	f.hook = func(string) {
		if n--; n == 0 {
			panic(errDeath)
		}
	}
	defer func() {
		f.hook = nil
		if r := recover(); r != nil && r != errDeath {
			panic(r)
		} else if r != nil {
			died = true
		}
	}()
	do()
	return false
}

// TestCrashBeforeEachCommand is for the types whose programs no test machine can
// run. Every verb is asked for again by a new hostd, as the toolstack would.
func TestCrashBeforeEachCommand(t *testing.T) {
	for kind := range kinds(&machine{}) {
		t.Run(kind, func(t *testing.T) {
			for n := 1; ; n++ {
				f, m := newMachine(t)
				config := kinds(f)[kind]
				if !dieBefore(f, n, func() { story(t, m, config) }) {
					if n < 5 {
						t.Errorf("only %d commands", n)
					}
					return
				}
				// What it had finished is not known here, so all is asked for again.
				m = f.manager()
				m.Resume(t.Context())
				if story(t, m, config); t.Failed() {
					t.Fatalf("after a death before command %d:\n%s", n, f.transcript())
				}
				if left := f.drafts(); left != "" {
					t.Fatalf("after a death before command %d there is %s", n, left)
				}
			}
		})
	}
}

// story is idempotent as a whole: its verbs are, and those that cannot be asked for
// any more are left out by what is there.
func story(t *testing.T, m *Manager, config client.RepositoryConfig) {
	t.Helper()
	ctx := context.Background()
	_, err := m.Format(ctx, srA, config)
	must(t, err)
	_, err = m.Attach(ctx, srA, config)
	must(t, err)
	if _, err := m.Volume(ctx, srA, "leaf"); is(err, client.CodeNotFound) {
		create(t, m, "base", "")
		if v, err := m.Volume(ctx, srA, "top"); is(err, client.CodeNotFound) || v.VirtualSize == 64*mib {
			create(t, m, "top", "base")
		}
		_, err = m.ActivateVolume(ctx, srA, "top")
		must(t, err)
		_, err = m.ResizeVolume(ctx, srA, "top", 128*mib)
		must(t, err)
		_, err = m.DeactivateVolume(ctx, srA, "top")
		must(t, err)
		_, err = m.CreateVolume(ctx, srA, "leaf", client.VolumeSpec{Format: client.Qcow2, Backing: "top"})
		must(t, err)
	}
	if _, err := m.Volume(ctx, srA, "top"); err == nil {
		if v, err := m.Volume(ctx, srA, "leaf"); err == nil && v.Backing == "top" {
			must(t, m.CommitVolume(ctx, srA, "top", func(float64) {}))
		}
		must(t, m.RebaseVolume(ctx, srA, "leaf", "base"))
		must(t, m.DeleteVolume(ctx, srA, "top"))
	}
	if _, err := m.CopyVolume(ctx, srA, "leaf", srA, "copy", func(float64) {}); err != nil {
		refused(t, err, client.CodeConflict)
	}
	must(t, m.NoteVolume(ctx, srA, "copy", "newer"))
	show(t, m, "base:qcow2:128 copy:qcow2:128 leaf:qcow2:128<base")
	must(t, m.Detach(ctx, srA))
	_, err = m.Attach(ctx, srA, config)
	must(t, err)
}

// drafts are volumes of LVM that nobody will ever use.
func (f *machine) drafts() string {
	for _, g := range f.groups {
		if len(g.volumes) != 3 {
			return fmt.Sprintf("%d logical volumes", len(g.volumes))
		}
		for name, v := range g.volumes {
			if v.active {
				return name + " active"
			}
		}
	}
	return ""
}
