//go:build lab

package devhost

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cairn/journal"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/hypervisor/conformance"
)

func TestMain(m *testing.M) {
	Main()
	os.Exit(m.Run())
}

func start(t *testing.T) (*Libvirt, *hypervisor.Libvirt) {
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
	log := &bytes.Buffer{}
	l, err := Start(t.Context(), Config{Tree: tree, Dir: dir, Binds: map[string]string{"/usr/share/cairn/guest": guest}, Output: log})
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
	h := hypervisor.Connect(hypervisor.Config{Socket: l.Socket(), Root: l.Root(), Log: journal.New(os.Stderr, "test")})
	t.Cleanup(func() { h.Close() })
	return l, h
}

func TestLibvirtConforms(t *testing.T) {
	l, h := start(t)
	conformance.Run(t, conformance.Target{
		Hypervisor: h,
		Spec: hypervisor.Spec{
			Kind: hypervisor.Emulated, Machine: hypervisor.DefaultMachine, MemoryBytes: 256 << 20, VCPUs: 1, VCPUsMax: 1,
			Boot: hypervisor.DirectBoot{
				Kernel: "/usr/share/cairn/guest/vmlinuz", Initrd: "/usr/share/cairn/guest/initrd.img",
				Args: "console=ttyS0 quiet",
			},
		},
		Greeting: Greeting,
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
