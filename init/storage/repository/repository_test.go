package repository

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"cairn/golden"
	"cairn/init/hostd/client"
	"cairn/init/storage/media"
)

// kinds are the types that keep images, each with its config on a machine.
func kinds(f *machine) map[string]client.RepositoryConfig {
	disk := map[string]string{"device": f.dir + "/dev/sda"}
	return map[string]client.RepositoryConfig{
		client.TypeFile: fileConfig(f.dir + "/sr/one"),
		client.TypeExt:  {Type: client.TypeExt, Config: disk},
		client.TypeLVM:  {Type: client.TypeLVM, Config: disk},
	}
}

// each runs a test on a new, attached repository of every such type.
func each(t *testing.T, test func(t *testing.T, f *machine, m *Manager, config client.RepositoryConfig)) {
	for _, kind := range []string{client.TypeFile, client.TypeExt, client.TypeLVM} {
		t.Run(kind, func(t *testing.T) {
			f, m := newMachine(t)
			config := kinds(f)[kind]
			_, err := m.Format(t.Context(), srA, config)
			must(t, err)
			_, err = m.Attach(t.Context(), srA, config)
			must(t, err)
			test(t, f, m, config)
		})
	}
}

func create(t *testing.T, m *Manager, name, backing string) client.Volume {
	t.Helper()
	v, err := m.CreateVolume(t.Context(), srA, name, client.VolumeSpec{Size: 64 * mib, Format: client.Qcow2, Backing: backing, Note: "note of " + name})
	must(t, err)
	return v
}

// shown is a repository in words.
func shown(t *testing.T, m *Manager) string {
	t.Helper()
	list, err := m.Volumes(t.Context(), srA)
	must(t, err)
	var out []string
	for _, v := range list {
		s := fmt.Sprintf("%s:%s:%d", v.Name, v.Format, v.VirtualSize/mib)
		for _, part := range []struct {
			sign string
			on   bool
		}{{"<" + v.Backing, v.Backing != ""}, {"!", v.Active}, {"?" + v.Problem, v.Problem != ""}} {
			if part.on {
				s += part.sign
			}
		}
		out = append(out, s)
	}
	return strings.Join(out, " ")
}

func show(t *testing.T, m *Manager, want string) {
	t.Helper()
	if got := shown(t, m); got != want {
		t.Errorf("volumes %q, want %q", got, want)
	}
}

// TestLife is every verb once, and what it asks the machine for.
func TestLife(t *testing.T) {
	each(t, func(t *testing.T, f *machine, m *Manager, config client.RepositoryConfig) {
		ctx := t.Context()
		var out strings.Builder
		step := func(name string) { fmt.Fprintf(&out, "# %s\n%s", name, f.transcript()) }
		step("format, attach")
		create(t, m, "base", "")
		create(t, m, "top", "base")
		step("create base, top on it")
		_, err := m.ActivateVolume(ctx, srA, "top")
		must(t, err)
		show(t, m, "base:qcow2:64 top:qcow2:64<base!")
		step("activate top")
		v, err := m.ResizeVolume(ctx, srA, "top", 128*mib)
		must(t, err)
		if v.VirtualSize != 128*mib || !v.Active || v.Note != "note of top" {
			t.Errorf("%+v", v)
		}
		step("resize top")
		_, err = m.DeactivateVolume(ctx, srA, "top")
		must(t, err)
		step("deactivate top")
		must(t, m.CommitVolume(ctx, srA, "top", func(float64) {}))
		show(t, m, "base:qcow2:128 top:qcow2:128<base")
		step("commit top")
		_, err = m.CreateVolume(ctx, srA, "leaf", client.VolumeSpec{Format: client.Qcow2, Backing: "top"})
		must(t, err)
		must(t, m.RebaseVolume(ctx, srA, "leaf", "base"))
		must(t, m.DeleteVolume(ctx, srA, "top"))
		step("create leaf on top, rebase to base, delete top")
		show(t, m, "base:qcow2:128 leaf:qcow2:128<base")
		_, err = m.CopyVolume(ctx, srA, "leaf", srA, "copy", func(float64) {})
		must(t, err)
		must(t, m.NoteVolume(ctx, srA, "copy", strings.Repeat("long ", 300)))
		step("copy leaf, note")
		if v, err := m.Volume(ctx, srA, "copy"); err != nil || len(v.Note) != 1500 || v.Backing != "" {
			t.Errorf("copy: %+v, %v", v, err)
		}
		c, err := m.CheckVolume(ctx, srA, "copy")
		if err != nil || c.End != 262144 {
			t.Errorf("check: %+v, %v", c, err)
		}
		step("check copy")
		must(t, m.Detach(ctx, srA))
		must(t, m.Detach(ctx, srA))
		must(t, m.Erase(ctx, srA, config))
		must(t, m.Erase(ctx, srA, config))
		step("detach, erase")
		golden.Equal(t, "testdata/"+"life-"+config.Type+".golden", out.String())
	})
}

func TestVerbsMayBeRepeated(t *testing.T) {
	each(t, func(t *testing.T, f *machine, m *Manager, config client.RepositoryConfig) {
		ctx := t.Context()
		for range 2 {
			_, err := m.Format(ctx, srA, config)
			must(t, err)
			_, err = m.Attach(ctx, srA, config)
			must(t, err)
			create(t, m, "base", "")
			create(t, m, "top", "base")
			_, err = m.ActivateVolume(ctx, srA, "top")
			must(t, err)
			_, err = m.ResizeVolume(ctx, srA, "top", 64*mib)
			must(t, err)
			must(t, m.DeleteVolume(ctx, srA, "none"))
		}
		must(t, m.NoteVolume(ctx, srA, "top", "newer"))
		if v := create(t, m, "top", "base"); v.Note != "newer" {
			t.Errorf("the note became %q", v.Note)
		}
		for _, spec := range []client.VolumeSpec{
			{Size: 128 * mib, Format: client.Qcow2, Backing: "base"}, {Size: 64 * mib, Format: client.Qcow2}, {Size: 64 * mib, Format: client.Raw},
		} {
			_, err := m.CreateVolume(ctx, srA, "top", spec)
			refused(t, err, client.CodeConflict)
		}
	})
}

func TestWhatIsNeededStays(t *testing.T) {
	each(t, func(t *testing.T, f *machine, m *Manager, config client.RepositoryConfig) {
		ctx := t.Context()
		create(t, m, "base", "")
		create(t, m, "one", "base")
		create(t, m, "two", "base")
		_, err := m.ActivateVolume(ctx, srA, "one")
		must(t, err)
		refused(t, m.DeleteVolume(ctx, srA, "base"), client.CodeConflict)
		refused(t, m.DeleteVolume(ctx, srA, "one"), client.CodeInUse)
		refused(t, m.CommitVolume(ctx, srA, "one", func(float64) {}), client.CodeConflict)
		v, err := m.ResizeVolume(ctx, srA, "base", 128*mib)
		if err != nil || v.VirtualSize != 64*mib || config.Type == client.TypeLVM && v.Used < 128*mib {
			t.Errorf("room for a commit: %+v, %v", v, err)
		}
		_, err = m.ResizeVolume(ctx, srA, "one", 32*mib)
		refused(t, err, client.CodeBadRequest)
		refused(t, m.RebaseVolume(ctx, srA, "base", "one"), client.CodeBadRequest)
		refused(t, m.Detach(ctx, srA), client.CodeInUse)
		refused(t, m.Erase(ctx, srA, config), client.CodeInUse)
		_, err = m.CopyVolume(ctx, srA, "one", srA, "two", func(float64) {})
		refused(t, err, client.CodeConflict)
		show(t, m, "base:qcow2:64 one:qcow2:64<base! two:qcow2:64<base")
	})
}

func TestFullMedium(t *testing.T) {
	f, m := newMachine(t)
	config := kinds(f)[client.TypeLVM]
	_, err := m.Format(t.Context(), srA, config)
	must(t, err)
	_, err = m.Attach(t.Context(), srA, config)
	must(t, err)
	_, err = m.CreateVolume(t.Context(), srA, "big", client.VolumeSpec{Size: 11 << 30, Format: client.Qcow2})
	refused(t, err, client.CodeNoSpace)
	create(t, m, "small", "")
	_, err = m.ResizeVolume(t.Context(), srA, "small", 11<<30)
	refused(t, err, client.CodeNoSpace)
	f.fail["qemu-img create"] = failure("qemu-img", 1, "qemu-img: x: No space left on device")
	_, err = m.CreateVolume(t.Context(), srA, "other", client.VolumeSpec{Size: mib, Format: client.Qcow2})
	refused(t, err, client.CodeNoSpace)
	show(t, m, "small:qcow2:64")
	if n := len(f.groups[f.dir+"/dev/sda"].volumes); n != 1 {
		t.Errorf("%d logical volumes are left", n)
	}
}

// TestRestart: a new hostd finds what is attached and active, and removes what the
// old one had half made.
func TestRestart(t *testing.T) {
	each(t, func(t *testing.T, f *machine, m *Manager, config client.RepositoryConfig) {
		create(t, m, "base", "")
		create(t, m, "top", "base")
		_, err := m.ActivateVolume(t.Context(), srA, "top")
		must(t, err)
		ctx, die := context.WithCancel(t.Context())
		f.hook = func(c string) {
			if strings.HasPrefix(c, "qemu-img convert") {
				die()
				f.fail["lvm lvremove"] = errors.New("hostd is gone")
			}
		}
		_, err = m.CopyVolume(ctx, srA, "base", srA, "copy", func(float64) {})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("copy: %v", err)
		}
		f.hook, f.fail = nil, map[string]error{}
		if config.Type != client.TypeLVM {
			dir := f.dir + "/mnt/" + srA
			if config.Type == client.TypeFile {
				dir = f.dir + "/sr/one"
			}
			must(t, os.WriteFile(dir+"/.new-copy.qcow2", nil, 0o600))
			must(t, os.WriteFile(dir+"/gone.json", []byte("{}"), 0o600))
			must(t, os.WriteFile(dir+"/strange.txt", nil, 0o600))
		}
		f.transcript()
		m = f.manager()
		m.Resume(t.Context())
		if log := f.transcript(); !strings.Contains(log, "half-made-removed") || strings.Contains(log, "e2fsck") || strings.Contains(log, "strange") {
			t.Errorf("at the next start:\n%s", log)
		}
		show(t, m, "base:qcow2:64 top:qcow2:64<base!")
		_, err = m.DeactivateVolume(t.Context(), srA, "top")
		must(t, err)
		must(t, m.Detach(t.Context(), srA))
		refused(t, func() error { _, err := m.Volumes(t.Context(), srA); return err }(), client.CodeNotAttached)
	})
}

// TestLostDisk: a repository whose disk is gone can be detached.
func TestLostDisk(t *testing.T) {
	f, m := newMachine(t)
	config := kinds(f)[client.TypeLVM]
	_, err := m.Format(t.Context(), srA, config)
	must(t, err)
	_, err = m.Attach(t.Context(), srA, config)
	must(t, err)
	must(t, os.Remove(f.dir+"/dev/sda"))
	m = f.manager()
	m.Resume(t.Context())
	must(t, m.Detach(t.Context(), srA))
	_, err = m.Attach(t.Context(), srA, config)
	refused(t, err, client.CodeBadRequest)
}

func TestMediaInUseAreRefused(t *testing.T) {
	for name, plant := range map[string]func(*testing.T, *machine){
		"gpt": func(_ *testing.T, f *machine) { f.signatures[f.dir+"/dev/sda"] = []media.Signature{{Type: "gpt"}} },
		`ext4 "data"`: func(_ *testing.T, f *machine) {
			f.signatures[f.dir+"/dev/sda"] = []media.Signature{{Type: "ext4", Label: "data"}}
		},
		"partition sda1":           func(t *testing.T, f *machine) { f.plant(t, "sys/class/block/sda/sda1/partition", "1") },
		"device dm-3 on top of it": func(t *testing.T, f *machine) { f.plant(t, "sys/class/block/sda/holders/dm-3/dev", "") },
		"a mount at /data": func(t *testing.T, f *machine) {
			f.plant(t, "proc/self/mountinfo", "30 1 8:0 / /data rw - ext4 /dev/sda rw\n")
		},
		"a write protection": func(t *testing.T, f *machine) { f.plant(t, "sys/class/block/sda/ro", "1\n") },
		"swap space": func(t *testing.T, f *machine) {
			f.plant(t, "proc/swaps", "Filename\n"+f.dir+"/dev/sda partition 1 0 0\n")
		},
		"the disk the host runs from": func(*testing.T, *machine) {},
	} {
		for _, kind := range []string{client.TypeExt, client.TypeLVM} {
			f, m := newMachine(t)
			if strings.Contains(name, "runs from") {
				m.cfg.Media.BootDisk = "sda"
			}
			plant(t, f)
			_, err := m.Format(t.Context(), srA, kinds(f)[kind])
			refused(t, err, client.CodeInUse)
			if err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %v does not name %s", kind, err, name)
			}
			refused(t, m.Erase(t.Context(), srA, kinds(f)[kind]), client.CodeInUse)
			found, err := m.Probe(t.Context(), client.RepositoryConfig{Type: kind})
			if err != nil || len(found) != 0 {
				t.Errorf("probe offers %+v, %v", found, err)
			}
			if log := f.transcript(); strings.Contains(log, "mke2fs") || strings.Contains(log, "create") {
				t.Errorf("%s: it was written to:\n%s", name, log)
			}
		}
	}
}

// TestAnothersRepository: one repository's signature does not open the disk to
// another.
func TestAnothersRepository(t *testing.T) {
	each(t, func(t *testing.T, f *machine, m *Manager, config client.RepositoryConfig) {
		create(t, m, "base", "")
		must(t, m.Detach(t.Context(), srA))
		_, err := m.Format(t.Context(), srB, config)
		refused(t, err, client.CodeInUse)
		refused(t, m.Erase(t.Context(), srB, config), client.CodeInUse)
		if _, err := m.Attach(t.Context(), srB, config); err == nil {
			t.Error("attached as another")
		}
		found, err := m.Probe(t.Context(), config)
		if err != nil || len(found) != 1 || found[0].UUID != srA || found[0].Type != config.Type {
			t.Errorf("probe: %+v, %v", found, err)
		}
		_, err = m.Attach(t.Context(), srA, client.RepositoryConfig{Type: found[0].Type, Config: found[0].Config})
		must(t, err)
		show(t, m, "base:qcow2:64")
	})
}

// TestOneRepositoryInOnePlace: what is attached is not made or erased elsewhere.
func TestOneRepositoryInOnePlace(t *testing.T) {
	each(t, func(t *testing.T, f *machine, m *Manager, _ client.RepositoryConfig) {
		create(t, m, "base", "")
		other := fileConfig(f.dir + "/sr/two")
		_, err := m.Format(t.Context(), srA, other)
		refused(t, err, client.CodeConflict)
		_, err = m.Attach(t.Context(), srA, other)
		refused(t, err, client.CodeConflict)
		refused(t, m.Erase(t.Context(), srA, other), client.CodeConflict)
		show(t, m, "base:qcow2:64")
	})
}

func TestBadRequests(t *testing.T) {
	f, m := newMachine(t)
	ctx := t.Context()
	must(t, os.Symlink("/", f.dir+"/sr/out"))
	type config = client.RepositoryConfig
	for _, c := range []config{
		fileConfig("/etc"), fileConfig(f.dir + "/sr"), fileConfig(f.dir + "/sr/../x"), fileConfig(f.dir + "/sr/out/x"), fileConfig(""),
		{Type: client.TypeFile, Config: map[string]string{"location": f.dir + "/sr/x", "loction": "y"}},
		{Type: client.TypeExt}, {Type: client.TypeExt, Config: map[string]string{"device": "/etc/passwd"}},
		{Type: client.TypeExt, Config: map[string]string{"device": f.dir + "/dev/../dev/sda"}},
		{Type: client.TypeExt, Config: map[string]string{"device": f.dir + "/dev/none"}},
		{Type: client.TypeUdev, Config: map[string]string{"location": "/dev"}},
		{Type: client.TypeDummy, Config: map[string]string{"size": "-1"}},
	} {
		_, err := m.Format(ctx, srA, c)
		refused(t, err, client.CodeBadRequest)
	}
	for _, c := range []config{
		{Type: "nfs"}, {Type: client.TypeExt, Config: map[string]string{"device": "/dev/sda,/dev/sdb"}},
		{Type: client.TypeISO, Config: map[string]string{"location": "server:/isos", "type": "nfs_iso"}},
		{Type: client.TypeISO, Config: map[string]string{"location": f.dir + "/iso/x"}},
	} {
		_, err := m.Format(ctx, srA, c)
		if !is(err, client.CodeUnsupported) && !is(err, client.CodeBadRequest) {
			t.Errorf("%v: %v", c, err)
		}
	}
	for _, sr := range []string{"", "x", "../" + srA, strings.ToUpper(srA)} {
		_, err := m.Format(ctx, sr, fileConfig(f.dir+"/sr/x"))
		refused(t, err, client.CodeBadRequest)
	}
}

// TestNested: a directory inside another repository is none of its own, nor is one
// around it.
func TestNested(t *testing.T) {
	f, m := newMachine(t)
	ctx := t.Context()
	_, err := m.Format(ctx, srA, fileConfig(f.dir+"/sr/deep/a"))
	must(t, err)
	for location, code := range map[string]string{
		"/sr/deep/a/x": client.CodeBadRequest, "/sr/deep/a/x/y": client.CodeBadRequest, "/sr/deep": client.CodeInUse,
	} {
		_, err = m.Format(ctx, srB, fileConfig(f.dir+location))
		refused(t, err, code)
	}
	if _, err := os.Stat(f.dir + "/sr/deep/a/x"); err == nil {
		t.Error("a directory was made")
	}
}

func TestBadVolumes(t *testing.T) {
	each(t, func(t *testing.T, f *machine, m *Manager, _ client.RepositoryConfig) {
		ctx := t.Context()
		create(t, m, "base", "")
		good := client.VolumeSpec{Size: mib, Format: client.Qcow2}
		for _, name := range []string{"", ".", "..", "a/b", "../a", ".hidden", "-n", "a b", "a..b", strings.Repeat("x", 65), "é", "a\x00b"} {
			_, err := m.CreateVolume(ctx, srA, name, good)
			refused(t, err, client.CodeBadRequest)
			_, err = m.CopyVolume(ctx, srA, "base", srA, name, func(float64) {})
			refused(t, err, client.CodeBadRequest)
			if err := m.DeleteVolume(ctx, srA, name); err != nil {
				refused(t, err, client.CodeBadRequest)
			}
		}
		for _, spec := range []client.VolumeSpec{
			{Size: 0, Format: client.Qcow2}, {Size: -512, Format: client.Raw}, {Size: 100, Format: client.Raw}, {Size: mib}, {Size: mib, Format: "vmdk"},
			{Size: mib, Format: client.Raw, Backing: "base"}, {Size: mib, Format: client.Qcow2, Backing: "base"}, {Size: mib, Format: client.Qcow2, Backing: "v"},
		} {
			_, err := m.CreateVolume(ctx, srA, "v", spec)
			refused(t, err, client.CodeBadRequest)
		}
		_, err := m.CreateVolume(ctx, srA, "v", client.VolumeSpec{Size: mib, Format: client.Qcow2, Note: strings.Repeat("x", client.MaxNote+1)})
		refused(t, err, client.CodeTooLarge)
		_, err = m.CreateVolume(ctx, srA, "v", client.VolumeSpec{Size: mib, Format: client.Qcow2, Backing: "none"})
		refused(t, err, client.CodeNotFound)
		show(t, m, "base:qcow2:64")
	})
}

func TestLongChain(t *testing.T) {
	f, m := newMachine(t)
	_, err := m.Format(t.Context(), srA, fileConfig(f.dir+"/sr/one"))
	must(t, err)
	_, err = m.Attach(t.Context(), srA, fileConfig(f.dir+"/sr/one"))
	must(t, err)
	create(t, m, "v0", "")
	for i := 1; i < maxChain; i++ {
		create(t, m, fmt.Sprintf("v%d", i), fmt.Sprintf("v%d", i-1))
	}
	_, err = m.CreateVolume(t.Context(), srA, "more", client.VolumeSpec{Format: client.Qcow2, Backing: fmt.Sprintf("v%d", maxChain-1)})
	refused(t, err, client.CodeUnsupported)
	// A ring, as only damage makes, ends.
	must(t, patch(f.dir+"/sr/one/v0.qcow2", func(h []byte) { setBacking(h, "v1.qcow2", "qcow2") }))
	_, err = m.ActivateVolume(t.Context(), srA, "v5")
	refused(t, err, client.CodeDamaged)
}

// TestLongWork: what is being worked on is refused at once; the rest goes on.
func TestLongWork(t *testing.T) {
	each(t, func(t *testing.T, f *machine, m *Manager, config client.RepositoryConfig) {
		ctx := t.Context()
		create(t, m, "base", "")
		create(t, m, "top", "base")
		begun, end := make(chan bool), make(chan bool)
		f.hook = func(c string) {
			if strings.HasPrefix(c, "qemu-img commit") {
				close(begun)
				<-end
			}
		}
		done := make(chan error)
		var seen []float64
		go func() { done <- m.CommitVolume(ctx, srA, "top", func(p float64) { seen = append(seen, p) }) }()
		<-begun
		refused(t, m.DeleteVolume(ctx, srA, "top"), client.CodeInUse)
		refused(t, m.NoteVolume(ctx, srA, "base", "x"), client.CodeInUse)
		refused(t, m.Detach(ctx, srA), client.CodeInUse)
		_, err := m.CreateVolume(ctx, srA, "other", client.VolumeSpec{Size: mib, Format: client.Qcow2, Backing: "base"})
		refused(t, err, client.CodeInUse)
		create(t, m, "apart", "")
		_, err = m.Attach(ctx, srA, config)
		must(t, err)
		close(end)
		must(t, <-done)
		if !slices.Equal(seen, []float64{0.5, 1}) {
			t.Errorf("progress %v", seen)
		}
		must(t, m.DeleteVolume(ctx, srA, "top"))
	})
}
