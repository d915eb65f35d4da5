package repository

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"cairn/init/hostd/client"
	"cairn/init/storage/qemuimg"
)

// bytesOf are where a volume's bytes are while it is open.
func (f *machine) bytesOf(t *testing.T, m *Manager, name string) string {
	t.Helper()
	v, err := m.ActivateVolume(t.Context(), srA, name)
	must(t, err)
	return v.Path
}

// occupy makes a layer of 64 MiB hold some of its clusters, as QEMU would.
func occupy(t *testing.T, path string, clusters ...int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	put := func(at int64, b []byte) {
		t.Helper()
		_, err := f.WriteAt(b, at)
		must(t, err)
	}
	put(36, binary.BigEndian.AppendUint32(nil, 1))
	put(40, binary.BigEndian.AppendUint64(nil, qemuimg.ClusterSize))
	put(qemuimg.ClusterSize, binary.BigEndian.AppendUint64(nil, 2*qemuimg.ClusterSize))
	put(2*qemuimg.ClusterSize, make([]byte, qemuimg.ClusterSize))
	for _, c := range clusters {
		put(int64(2*qemuimg.ClusterSize+8*c), binary.BigEndian.AppendUint64(nil, 3*qemuimg.ClusterSize))
	}
}

func TestAllocation(t *testing.T) {
	each(t, func(t *testing.T, f *machine, m *Manager, config client.RepositoryConfig) {
		create(t, m, "base", "")
		create(t, m, "top", "base")
		occupy(t, f.bytesOf(t, m, "base"), 0, 1)
		occupy(t, f.bytesOf(t, m, "top"), 8, 1023)
		for name, want := range map[string][2]byte{"base": {0xc0, 0}, "top": {0, 0x80}} {
			a, err := m.Allocation(t.Context(), srA, name)
			if err != nil || a.Size != 64*mib || len(a.Bits) != 128 || !bytes.Equal(a.Bits[:2], want[:]) {
				t.Errorf("%s: %d of %d bits, begins with %x, %v", name, len(a.Bits)*8, a.Size, a.Bits[:min(2, len(a.Bits))], err)
			}
		}
		file, err := os.OpenFile(f.bytesOf(t, m, "top"), os.O_RDWR, 0)
		must(t, err)
		defer file.Close()
		_, err = file.WriteAt(binary.BigEndian.AppendUint64(nil, 1<<50), qemuimg.ClusterSize)
		must(t, err)
		if _, err := m.Allocation(t.Context(), srA, "top"); err == nil {
			t.Error("a layer without its tables")
		}
		_, err = m.Allocation(t.Context(), srA, "none")
		refused(t, err, client.CodeNotFound)
	})
}

func logs(t *testing.T, m *Manager) string {
	t.Helper()
	list, err := m.ChangeLogs(t.Context(), srA)
	must(t, err)
	var names []string
	for _, l := range list {
		names = append(names, l.Name)
	}
	return strings.Join(names, " ")
}

// TestLogs: logs are beside volumes, and no verb takes one for the other.
func TestLogs(t *testing.T) {
	each(t, func(t *testing.T, f *machine, m *Manager, config client.RepositoryConfig) {
		ctx, text := t.Context(), bytes.Repeat([]byte("x"), 1000)
		create(t, m, "base", "")
		must(t, m.WriteChangeLog(ctx, srA, "b", text))
		must(t, m.WriteChangeLog(ctx, srA, "a", []byte("y")))
		refused(t, m.WriteChangeLog(ctx, srA, "a", text), client.CodeConflict)
		if got := logs(t, m); got != "a b" {
			t.Errorf("logs %s", got)
		}
		show(t, m, "base:qcow2:64")
		got, err := m.ReadChangeLog(ctx, srA, "b")
		if err != nil || !bytes.Equal(bytes.TrimRight(got, "\x00"), text) || len(got) > 1024 {
			t.Errorf("%d bytes, %v", len(got), err)
		}
		for _, name := range []string{"a", logPrefix + "a"} {
			_, err := m.Volume(ctx, srA, name)
			refused(t, err, client.CodeNotFound)
		}
		must(t, m.DeleteVolume(ctx, srA, logPrefix+"a"))
		_, err = m.CreateVolume(ctx, srA, logPrefix+"z", client.VolumeSpec{Size: mib, Format: client.Qcow2})
		refused(t, err, client.CodeBadRequest)
		_, err = m.CopyVolume(ctx, srA, "base", srA, logPrefix+"z", func(float64) {})
		refused(t, err, client.CodeBadRequest)
		refused(t, m.WriteChangeLog(ctx, srA, "../x", text), client.CodeBadRequest)
		refused(t, m.WriteChangeLog(ctx, srA, strings.Repeat("x", maxLogName+1), text), client.CodeBadRequest)
		refused(t, m.WriteChangeLog(ctx, srA, "c", nil), client.CodeTooLarge)
		must(t, m.Detach(ctx, srA))
		m = f.manager()
		_, err = m.Attach(ctx, srA, config)
		must(t, err)
		must(t, m.DeleteChangeLog(ctx, srA, "a"))
		must(t, m.DeleteChangeLog(ctx, srA, "a"))
		if got := logs(t, m); got != "b" {
			t.Errorf("logs %s", got)
		}
		_, err = m.ReadChangeLog(ctx, srA, "a")
		refused(t, err, client.CodeNotFound)
		must(t, m.Detach(ctx, srA))
		must(t, m.Erase(ctx, srA, config))
	})
}

// TestLogCutOff: whichever of LVM's steps is the last, a log is there whole or not at
// all, and can be written again.
func TestLogCutOff(t *testing.T) {
	text := bytes.Repeat([]byte("changed "), 1000)
	for step := 1; ; step++ {
		f, m := newMachine(t)
		config := kinds(f)[client.TypeLVM]
		_, err := m.Format(t.Context(), srA, config)
		must(t, err)
		_, err = m.Attach(t.Context(), srA, config)
		must(t, err)
		ctx, die := context.WithCancelCause(t.Context())
		left := step
		f.hook = func(c string) {
			if left--; left <= 0 {
				die(errors.New("hostd is gone"))
				f.fail["lvm"] = context.Cause(ctx)
			}
		}
		werr := m.WriteChangeLog(ctx, srA, "one", text)
		f.hook, f.fail = nil, map[string]error{}
		m = f.manager()
		m.Resume(t.Context())
		got, err := m.ReadChangeLog(t.Context(), srA, "one")
		switch {
		case err == nil && !bytes.Equal(bytes.TrimRight(got, "\x00"), text):
			t.Fatalf("step %d: another log", step)
		case err != nil && (werr == nil || !is(err, client.CodeNotFound)):
			t.Fatalf("step %d: written: %v, read: %v", step, werr, err)
		case err != nil:
			must(t, m.WriteChangeLog(t.Context(), srA, "one", text))
		}
		if n := len(f.groups[f.dir+"/dev/sda"].volumes); n != 1 {
			t.Fatalf("step %d: %d logical volumes", step, n)
		}
		if left > 0 {
			if step < 5 {
				t.Errorf("only %d steps", step)
			}
			return
		}
	}
}
