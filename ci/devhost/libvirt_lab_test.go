//go:build lab

package devhost

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"cairn/image/debian"
	"cairn/image/guest/agent"
	"cairn/journal"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/hypervisor/conformance"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

// bounded is the time of a test that may wait for what never comes.
func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func start(t *testing.T) (*Libvirt, *hypervisor.Libvirt, volumes) {
	tree := Tree(t)
	guest := t.TempDir()
	if err := BuildGuest(t.Context(), tree, guest); err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "lv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	v := newVolumes(t, debian.NewTree(tree, nil, nil), dir)
	log := &bytes.Buffer{}
	l, err := Start(t.Context(), Config{Tree: tree, Dir: dir, Binds: map[string]string{"/usr/share/cairn/guest": guest}, Bridges: []string{"xenbr0"}, Output: log})
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	t.Cleanup(func() {
		l.Close()
		if t.Failed() {
			t.Log(log)
			logs, _ := filepath.Glob(filepath.Join(dir, "var/log/libvirt/qemu/*"))
			for _, f := range logs {
				text, _ := os.ReadFile(f)
				t.Logf("%s:\n%s", f, text)
			}
		}
	})
	h := hypervisor.Connect(hypervisor.Config{
		Socket: l.Socket(), Root: l.Root(), Log: journal.New(os.Stderr, "test"), Limits: limits,
	})
	t.Cleanup(func() { h.Close() })
	return l, h, v
}

// limits are those of a slow machine, except that nobody waits long for a guest
// that keeps its devices.
var limits = hypervisor.Limits{
	Call: 90 * time.Second, Job: 120 * time.Second, Connect: 10 * time.Second, Save: 5 * time.Minute, Unplug: 15 * time.Second,
	BackoffMin: 20 * time.Millisecond, BackoffMax: 100 * time.Millisecond,
}

// demoGuest is the demo guest as a machine without a name or a device.
func demoGuest() hypervisor.Spec {
	return hypervisor.Spec{
		Kind: hypervisor.Emulated, Machine: hypervisor.DefaultMachine, MemoryBytes: 256 << 20, VCPUs: 1, VCPUsMax: 1,
		Boot: hypervisor.DirectBoot{
			Kernel: "/usr/share/cairn/guest/vmlinuz", Initrd: "/usr/share/cairn/guest/initrd.img", Args: "console=ttyS0 quiet",
		},
	}
}

// withDisk is one of a name of its own, with a disk.
func withDisk(source hypervisor.Source) (spec hypervisor.Spec, id string) {
	spec, id = demoGuest(), uuid.NewString()
	spec.UUID = uuid.NewString()
	spec.Disks = []hypervisor.Disk{{ID: id, Serial: "disk", Device: "sda", Bus: hypervisor.SCSI, Source: &source}}
	return spec, id
}

func TestLibvirtConforms(t *testing.T) {
	l, h, v := start(t)
	conformance.Run(t, conformance.Target{
		Hypervisor: h,
		Spec:       demoGuest(),
		Greeting:   Greeting, Agent: true, Pattern: agent.Pattern, Volumes: v, Bridge: "xenbr0",
		// A guest that does not run does not answer either.
		Hold: func(t *testing.T, uuid string) {
			if err := h.Pause(t.Context(), uuid); err != nil {
				t.Fatal(err)
			}
		},
		Kept: func(t *testing.T, uuid string, want bool) {
			nvram, err := filepath.Glob(filepath.Join(l.Root(), "var/lib/libvirt/qemu/nvram", uuid+"*"))
			if err != nil || (len(nvram) > 0) != want {
				t.Errorf("kept of UEFI are %q, %v", nvram, err)
			}
			tpm, err := filepath.Glob(filepath.Join(l.Root(), "var/lib/libvirt/swtpm", uuid))
			if err != nil || len(tpm) > 0 && !want {
				t.Errorf("kept of the TPM are %q, %v", tpm, err)
			}
		},
		Full: v.full,
		Kill: func(t *testing.T, _ string) {
			if err := l.Kill("qemu-system-x86_64"); err != nil {
				t.Fatal(err)
			}
		},
		Bounce: func(t *testing.T) {
			if err := errors.Join(l.Kill("libvirtd"), l.Run("libvirtd")); err != nil {
				t.Fatal(err)
			}
		},
		Limit: 90 * time.Second,
	})
}
