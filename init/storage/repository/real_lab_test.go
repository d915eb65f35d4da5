//go:build lab

package repository

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"cairn/init/hostd/client"
	"cairn/init/storage/qemuimg"
	"cairn/init/storage/tool"
)

// guest writes or reads a volume's bytes as a guest would, with qemu-io.
func guest(t *testing.T, m *Manager, v client.Volume, commands ...string) {
	t.Helper()
	v, err := m.ActivateVolume(t.Context(), srA, v.Name)
	must(t, err)
	args := []string{"-f", string(v.Format)}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := m.cfg.Tools.(tool.Linux).Make(t.Context(), "qemu-io", append(args, v.Path)...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "verification failed") || strings.Contains(string(out), "failed:") {
		t.Fatalf("%q on %s: %v\n%s", commands, v.Name, err, out)
	}
	_, err = m.DeactivateVolume(t.Context(), srA, v.Name)
	must(t, err)
}

func make64(t *testing.T, m *Manager, sr, name, backing string) client.Volume {
	t.Helper()
	v, err := m.CreateVolume(t.Context(), sr, name, client.VolumeSpec{Size: 64 * mib, Format: client.Qcow2, Backing: backing, Note: `{"name":"` + name + `"}`})
	must(t, err)
	return v
}

// life leads volumes through all that can happen to them.
func life(t *testing.T, m *Manager, sr string) {
	t.Helper()
	ctx := t.Context()
	base := make64(t, m, sr, "base", "")
	guest(t, m, base, "write -P 0x11 0 8M")
	top := make64(t, m, sr, "top", "base")
	if top.Backing != "base" || top.Note != `{"name":"top"}` {
		t.Errorf("top: %+v", top)
	}
	guest(t, m, top, "read -P 0x11 0 8M", "write -P 0x22 4M 8M")
	grown, err := m.ResizeVolume(ctx, sr, "top", 128*mib)
	must(t, err)
	if grown.VirtualSize != 128*mib {
		t.Errorf("grown to %d", grown.VirtualSize)
	}
	guest(t, m, grown, "write -P 0x33 127M 1M")

	must(t, copyVolume(ctx, m, sr, "top", sr, "flat"))
	flat, err := m.Volume(ctx, sr, "flat")
	must(t, err)
	want := []string{"read -P 0x11 0 4M", "read -P 0x22 4M 8M", "read -P 0 12M 115M", "read -P 0x33 127M 1M"}
	guest(t, m, flat, want...)
	if flat.Backing != "" || flat.Note != top.Note || !flat.Block && flat.Used > 32*mib {
		t.Errorf("flat: %+v", flat)
	}

	var last float64
	must(t, m.CommitVolume(ctx, sr, "top", func(f float64) { last = f }))
	must(t, m.CommitVolume(ctx, sr, "top", func(float64) {})) // again
	if last < 0.99 {
		t.Errorf("progress ends at %v", last)
	}
	base, err = m.Volume(ctx, sr, "base")
	must(t, err)
	guest(t, m, base, want...)
	guest(t, m, top, want...)

	make64b := client.VolumeSpec{Format: client.Qcow2, Backing: "top"}
	leaf, err := m.CreateVolume(ctx, sr, "leaf", make64b)
	must(t, err)
	must(t, m.RebaseVolume(ctx, sr, "leaf", "base"))
	must(t, m.DeleteVolume(ctx, sr, "top"))
	guest(t, m, leaf, want...)
	for _, name := range []string{"base", "leaf", "flat"} {
		c, err := m.CheckVolume(ctx, sr, name)
		if err != nil || c.Errors != 0 || c.Leaks != 0 || c.End == 0 {
			t.Errorf("check of %s: %+v, %v", name, c, err)
		}
	}
	refused(t, m.DeleteVolume(ctx, sr, "base"), client.CodeConflict)
	must(t, m.NoteVolume(ctx, sr, "flat", "other"))
	list, err := m.Volumes(ctx, sr)
	must(t, err)
	var names []string
	for _, v := range list {
		names = append(names, v.Name+"<"+v.Backing+v.Problem)
	}
	if got := strings.Join(names, " "); got != "base< flat< leaf<base" || list[1].Note != "other" {
		t.Errorf("volumes: %s, note %q", got, list[1].Note)
	}
}

func TestRealFileRepositorySmoke(t *testing.T) {
	m, dir := realManager(t)
	config := fileConfig(dir + "/sr/one")
	ctx := t.Context()
	_, err := m.Format(ctx, srA, config)
	must(t, err)
	r, err := m.Attach(ctx, srA, config)
	must(t, err)
	if r.Path != dir+"/sr/one" || r.Total == 0 || r.Free == 0 {
		t.Errorf("%+v", r)
	}
	life(t, m, srA)
	info, err := os.Stat(dir + "/sr/one/base.qcow2")
	must(t, err)
	if owner := info.Sys().(*syscall.Stat_t).Uid; owner != realUser || info.Mode().Perm() != 0o600 {
		t.Errorf("base belongs to %d with mode %v", owner, info.Mode())
	}
	must(t, m.Detach(ctx, srA))
	must(t, m.Erase(ctx, srA, config))
	if _, err := os.Stat(dir + "/sr/one"); !os.IsNotExist(err) {
		t.Errorf("after erase: %v", err)
	}
}

func TestRealExtRepository(t *testing.T) {
	m, _ := realManager(t)
	disk := loop(t, 512*mib)
	config := client.RepositoryConfig{Type: client.TypeExt, Config: map[string]string{"device": disk}}
	ctx := t.Context()
	found, err := m.Probe(ctx, config)
	must(t, err)
	if len(found) != 1 || found[0].UUID != "" || found[0].Total != 512*mib {
		t.Errorf("probe of a blank disk: %+v", found)
	}
	_, err = m.Format(ctx, srA, config)
	must(t, err)
	_, err = m.Format(ctx, srA, config) // again
	must(t, err)
	_, err = m.Format(ctx, srB, config)
	refused(t, err, client.CodeInUse)
	if found, err = m.Probe(ctx, config); err != nil || len(found) != 1 || found[0].UUID != srA {
		t.Errorf("probe: %+v, %v", found, err)
	}
	r, err := m.Attach(ctx, srA, config)
	must(t, err)
	t.Cleanup(func() { unix.Unmount(r.Path, unix.MNT_DETACH) })
	if r.Problem != "" || r.Total < 400*mib {
		t.Errorf("%+v", r)
	}
	life(t, m, srA)
	refusedErr := func() error { _, err := m.Format(ctx, srB, config); return err }()
	refused(t, refusedErr, client.CodeInUse)
	f, err := os.Open(r.Path + "/base.qcow2")
	must(t, err)
	refused(t, m.Detach(ctx, srA), client.CodeInUse)
	must(t, f.Close())
	must(t, m.Detach(ctx, srA))
	if _, err := m.Attach(ctx, srA, config); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Volume(ctx, srA, "leaf"); err != nil || v.Backing != "base" {
		t.Errorf("after detach and attach: %+v, %v", v, err)
	}
	must(t, m.Erase(ctx, srA, config))
	if found, err = m.Probe(ctx, config); err != nil || len(found) != 1 || found[0].UUID != "" {
		t.Errorf("probe after erase: %+v, %v", found, err)
	}
}

// TestRealMediaInUse tries every kind of thing that a disk may hold.
func TestRealMediaInUse(t *testing.T) {
	m, _ := realManager(t)
	ctx := t.Context()
	for name, mark := range map[string]struct {
		at   int64
		text string
	}{
		"dos":  {510, "\x55\xaa"},
		"LVM2": {512, "LABELONE\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x20\x00\x00\x00LVM2 001"},
	} {
		disk := loop(t, 64*mib)
		f, err := os.OpenFile(disk, os.O_WRONLY, 0)
		must(t, err)
		_, err = f.WriteAt([]byte(mark.text), mark.at)
		must(t, err)
		must(t, f.Close())
		_, err = m.Format(ctx, srA, client.RepositoryConfig{Type: client.TypeExt, Config: map[string]string{"device": disk}})
		refused(t, err, client.CodeInUse)
		if !strings.Contains(err.Error(), name) {
			t.Errorf("%v does not say that %s was found", err, name)
		}
	}
	disk := loop(t, 64*mib)
	_, err := m.cfg.Tools.Run(ctx, tool.Command{Name: "mke2fs", Args: []string{"-q", "-F", "-t", "ext4", disk}})
	must(t, err)
	for _, kind := range []string{client.TypeExt, client.TypeLVM} {
		_, err = m.Format(ctx, srA, client.RepositoryConfig{Type: kind, Config: map[string]string{"device": disk}})
		refused(t, err, client.CodeInUse)
		if !strings.Contains(err.Error(), "ext4") {
			t.Errorf("%s: %v does not say what was found", kind, err)
		}
	}
}

// TestRealFullDisk: what does not fit is told so, and leaves nothing behind.
func TestRealFullDisk(t *testing.T) {
	m, _ := realManager(t)
	config := client.RepositoryConfig{Type: client.TypeExt, Config: map[string]string{"device": loop(t, 64*mib)}}
	ctx := t.Context()
	_, err := m.Format(ctx, srA, config)
	must(t, err)
	r, err := m.Attach(ctx, srA, config)
	must(t, err)
	t.Cleanup(func() { unix.Unmount(r.Path, unix.MNT_DETACH) })
	base := make64(t, m, srA, "base", "")
	top := make64(t, m, srA, "top", "base")
	guest(t, m, top, "write -P 0x22 0 20M")
	must(t, os.WriteFile(r.Path+"/ballast", make([]byte, r.Free-24*mib), 0o600))
	refused(t, m.CommitVolume(ctx, srA, "top", func(float64) {}), client.CodeNoSpace)
	refused(t, copyVolume(ctx, m, srA, "top", srA, "copy"), client.CodeNoSpace)
	guest(t, m, base, "read -P 0 0 64M")
	must(t, os.Remove(r.Path+"/ballast"))
	must(t, m.CommitVolume(ctx, srA, "top", func(float64) {}))
	guest(t, m, base, "read -P 0x22 0 20M")
	left, err := filepath.Glob(r.Path + "/" + draftPrefix + "*")
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// TestRealConfinement: a confined program has no network, sees no other process,
// is nobody special, and an image cannot lead it to a file of the host.
func TestRealConfinement(t *testing.T) {
	m, dir := realManager(t)
	ctx := t.Context()
	config := fileConfig(dir + "/sr/one")
	_, err := m.Format(ctx, srA, config)
	must(t, err)
	_, err = m.Attach(ctx, srA, config)
	must(t, err)
	secret := filepath.Join(dir, "secret")
	must(t, os.WriteFile(secret, make([]byte, mib), 0o644))
	for name, cmd := range map[string][]string{
		"backing":  {"create", "-q", "-f", "qcow2", "-u", "-b", secret, "-F", "raw", "VOLUME", "1M"},
		"datafile": {"create", "-q", "-f", "qcow2", "-o", "data_file=" + dir + "/elsewhere", "VOLUME", "1M"},
		"network":  {"create", "-q", "-f", "qcow2", "-u", "-b", "nbd://127.0.0.1/x", "-F", "raw", "VOLUME", "1M"},
		"unformed": {"create", "-q", "-f", "raw", "VOLUME", "1M"},
	} {
		path := filepath.Join(dir, "sr/one", name+".qcow2")
		cmd[slices.Index(cmd, "VOLUME")] = path
		_, err := m.cfg.Tools.Run(ctx, tool.Command{Name: "qemu-img", Args: cmd})
		must(t, err)
		v, err := m.Volume(ctx, srA, name)
		if err != nil || v.Problem == "" {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
		_, err = m.ActivateVolume(ctx, srA, name)
		refused(t, err, client.CodeDamaged)
		refused(t, copyVolume(ctx, m, srA, name, srA, "copy"), client.CodeDamaged)
		must(t, m.DeleteVolume(ctx, srA, name))
	}
	hidden := filepath.Join(dir, "hidden")
	must(t, os.WriteFile(hidden, make([]byte, mib), 0o600))
	cmd := qemuimg.Check(hidden)
	if _, err := m.cfg.Tools.Run(ctx, cmd); !tool.Says(err, "Permission denied") {
		t.Errorf("a confined program opened a file of root's: %v", err)
	}
}

// copyVolume is CopyVolume for those who want to know only whether it worked.
func copyVolume(ctx context.Context, m *Manager, sr, name, toSR, toName string) error {
	v, err := m.CopyVolume(ctx, sr, name, toSR, toName, func(float64) {})
	if err == nil && v.Name != toName {
		return fmt.Errorf("the copy is named %q", v.Name)
	}
	return err
}

// keepOpen opens an image as a running guest does, until the test ends.
func keepOpen(t *testing.T, m *Manager, v client.Volume) {
	t.Helper()
	cmd := m.cfg.Tools.(tool.Linux).Make(context.Background(), "qemu-io", "-f", string(v.Format), v.Path)
	in, err := cmd.StdinPipe()
	must(t, err)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	_, err = in.Write([]byte("length\n"))
	must(t, err)
	_, err = out.Read(make([]byte, 256)) // it answers, so it has opened the image
	must(t, err)
}

// TestRealGuestHasItOpen: an image that a running QEMU has open is not touched,
// and can be the backing of a new one.
func TestRealGuestHasItOpen(t *testing.T) {
	m, dir := realManager(t)
	config := fileConfig(dir + "/sr/one")
	ctx := t.Context()
	_, err := m.Format(ctx, srA, config)
	must(t, err)
	_, err = m.Attach(ctx, srA, config)
	must(t, err)
	make64(t, m, srA, "base", "")
	leaf := make64(t, m, srA, "leaf", "base")
	keepOpen(t, m, leaf)
	refused(t, m.CommitVolume(ctx, srA, "leaf", func(float64) {}), client.CodeInUse)
	refused(t, m.RebaseVolume(ctx, srA, "leaf", "base"), client.CodeInUse)
	refused(t, copyVolume(ctx, m, srA, "leaf", srA, "copy"), client.CodeInUse)
	_, err = m.CheckVolume(ctx, srA, "leaf")
	refused(t, err, client.CodeInUse)
	v, err := m.ResizeVolume(ctx, srA, "leaf", 128*mib)
	if err != nil || v.VirtualSize != 64*mib {
		t.Errorf("resize, which is left to QEMU: %+v, %v", v, err)
	}
	top := make64(t, m, srA, "top", "leaf")
	if top.Backing != "leaf" {
		t.Errorf("%+v", top)
	}
	must(t, copyVolume(ctx, m, srA, "base", srA, "snapshot"))
}
