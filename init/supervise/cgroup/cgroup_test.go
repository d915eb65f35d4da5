package cgroup

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// fakeTree is a directory with the files a cgroup has.
func fakeTree(t *testing.T, groups ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, g := range append(groups, "", machineDir, servicesDir) {
		dir := filepath.Join(root, g)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		for _, f := range []string{"cgroup.subtree_control", "cgroup.kill", "cgroup.events", "cpu.weight"} {
			if err := os.WriteFile(filepath.Join(dir, f), []byte("populated 0\n"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func TestSetupHandsControllersDown(t *testing.T) {
	root := fakeTree(t)
	if err := New(root).Setup(); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"", machineDir, servicesDir} {
		got, err := os.ReadFile(filepath.Join(root, dir, "cgroup.subtree_control"))
		if err != nil || string(got[:5]) != "+pids" { // the last one written, into a plain file
			t.Errorf("%q: %q, %v", dir, got, err)
		}
	}
}

func TestKillReachesOnlyTheService(t *testing.T) {
	root := fakeTree(t, "svc/a", "svc/b")
	if err := New(root).Kill("a"); err != nil {
		t.Fatal(err)
	}
	for group, want := range map[string]string{"svc/a": "1", "svc/b": "p", "machine": "p", "": "p"} {
		got, err := os.ReadFile(filepath.Join(root, group, "cgroup.kill"))
		if err != nil || string(got[:1]) != want {
			t.Errorf("%q: %q, %v", group, got, err)
		}
	}
	if err := New(root).Kill("never-started"); err != nil {
		t.Errorf("a group that is not there: %v", err)
	}
}

func TestSetWeight(t *testing.T) {
	root := fakeTree(t, "svc/a")
	if err := New(root).SetWeight("a", 20); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(filepath.Join(root, "svc/a/cpu.weight")); err != nil || string(got[:2]) != "20" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestWaitEmpty(t *testing.T) {
	root := fakeTree(t, "svc/a")
	events := filepath.Join(root, "svc/a/cgroup.events")
	write := func(s string) {
		if err := os.WriteFile(events, []byte(s), 0o644); err != nil {
			t.Error(err)
		}
	}
	write("populated 1\nfrozen 0\n")
	done := make(chan error, 1)
	go func() { done <- New(root).WaitEmpty(t.Context(), "a") }()
	write("populated 0\nfrozen 0\n")
	if err := <-done; err != nil {
		t.Error(err)
	}
	write("populated 1\n")
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := New(root).WaitEmpty(ctx, "a"); err == nil {
		t.Error("a group in use counted as empty")
	}
	if err := New(root).WaitEmpty(t.Context(), "never-started"); err != nil {
		t.Error(err)
	}
}

func TestServiceOf(t *testing.T) {
	tests := []struct {
		in, want string
		ok       bool
	}{
		{"0::/svc/libvirtd\n", "libvirtd", true},
		{"0::/svc/libvirtd/sub/x\n", "libvirtd", true},
		{"12:pids:/x\n0::/svc/a\n", "a", true},
		{"0::/machine/qemu-1-a\n", "", false},
		{"0::/machine/svc/a\n", "", false},
		{"1:name=systemd:/svc/a\n", "", false},
		{"0::/svc/\n", "", false},
		{"0::/\n", "", false},
		{"", "", false},
	}
	for _, tt := range tests {
		if got, ok := ServiceOf([]byte(tt.in)); got != tt.want || ok != tt.ok {
			t.Errorf("%q: got %q, %v", tt.in, got, ok)
		}
	}
}

func FuzzServiceOf(f *testing.F) {
	f.Add([]byte("0::/svc/a/b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if name, ok := ServiceOf(data); ok && (name == "" || filepath.Base(name) != name && name != "..") {
			t.Errorf("%q gives %q", data, name)
		}
		Empty(data)
	})
}

func TestGuests(t *testing.T) {
	root := fakeTree(t)
	tree := New(root)
	if tree.Guests() {
		t.Error("guests without an events file")
	}
	for text, want := range map[string]bool{"populated 0\nfrozen 0\n": false, "populated 1\nfrozen 0\n": true} {
		if err := os.WriteFile(filepath.Join(root, machineDir, "cgroup.events"), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got := tree.Guests(); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
