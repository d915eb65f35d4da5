package repository

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn/init/hostd/client"
)

// echo serves as qemu-nbd does, to one that connects, and says what he says. It ends well
// when it is told to while it does so.
func echo(ctx context.Context, socket *os.File) error {
	l, err := net.FileListener(socket)
	if err != nil {
		return err
	}
	defer l.Close()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	conn, err := l.Accept()
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	if _, err = io.Copy(conn, conn); ctx.Err() != nil {
		return nil
	}
	return err
}

// loan is an export under way.
type loan struct {
	client.Export
	net.Conn
	ended  chan error
	cancel context.CancelFunc
}

// borrow exports a volume and connects to it.
func borrow(t *testing.T, m *Manager, name string, req client.ExportRequest) *loan {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	l, ready := &loan{ended: make(chan error, 1), cancel: cancel}, make(chan client.Export, 1)
	go func() {
		l.ended <- m.ExportVolume(ctx, srA, name, req, func(e client.Export) error { ready <- e; return nil })
	}()
	select {
	case l.Export = <-ready:
	case err := <-l.ended:
		t.Fatal(err)
	}
	return l
}

func (l *loan) dial(t *testing.T) {
	t.Helper()
	var err error
	l.Conn, err = net.Dial("unix", l.Socket)
	must(t, err)
}

// export asks for an export that is refused.
func export(t *testing.T, m *Manager, name string, req client.ExportRequest) error {
	return m.ExportVolume(t.Context(), srA, name, req, func(client.Export) error { return errors.New("it was begun") })
}

func TestExport(t *testing.T) {
	each(t, func(t *testing.T, f *machine, m *Manager, config client.RepositoryConfig) {
		create(t, m, "base", "")
		create(t, m, "top", "base")
		f.transcript()
		l := borrow(t, m, "top", client.ExportRequest{Layers: []string{"gone", "base"}})
		l.dial(t)
		if _, err := l.Write([]byte("bytes")); err != nil {
			t.Error(err)
		}
		got := make([]byte, 5)
		if _, err := io.ReadFull(l, got); err != nil || string(got) != "bytes" || strings.Join(l.Layers, " ") != "top base" {
			t.Errorf("%q %v, %v", got, l.Layers, err)
		}
		info, err := os.Stat(l.Socket)
		if err != nil || info.Mode().Perm() != exportMode {
			t.Errorf("%v, %v", info, err)
		}
		refused(t, export(t, m, "top", client.ExportRequest{Layers: []string{"base"}, Writable: true}), client.CodeInUse)
		refused(t, m.DeleteVolume(t.Context(), srA, "top"), client.CodeInUse)
		refused(t, m.Detach(t.Context(), srA), client.CodeInUse)
		second := borrow(t, m, "top", client.ExportRequest{Layers: []string{"base"}})
		second.dial(t)
		second.Close()
		must(t, <-second.ended)
		l.Close()
		must(t, <-l.ended)
		if left, err := os.ReadDir(filepath.Dir(l.Socket)); err != nil || len(left) > 0 {
			t.Errorf("%v is left, %v", left, err)
		}
		want := `qemu-nbd --allocation-depth --discard=unmap --read-only json:{"backing":{"backing":null,"driver":"qcow2","file":`
		if text := f.transcript(); !strings.Contains(text, want) {
			t.Errorf("asked for %s", text)
		}
		if g := f.groups["cairn-sr-"+srA]; g != nil && g.volumes["base"].active {
			t.Error("a layer stays active")
		}
		must(t, m.Detach(t.Context(), srA))
	})
}

func TestExportForWriting(t *testing.T) {
	each(t, func(t *testing.T, f *machine, m *Manager, config client.RepositoryConfig) {
		create(t, m, "base", "")
		create(t, m, "top", "base")
		write := client.ExportRequest{Layers: []string{"base"}, Writable: true}
		refused(t, export(t, m, "top", client.ExportRequest{Layers: []string{"top"}}), client.CodeDamaged)
		refused(t, export(t, m, "none", write), client.CodeNotFound)
		refused(t, export(t, m, "base", client.ExportRequest{Writable: true}), client.CodeConflict)
		_, err := m.ActivateVolume(t.Context(), srA, "top")
		must(t, err)
		refused(t, export(t, m, "top", write), client.CodeInUse)
		_, err = m.DeactivateVolume(t.Context(), srA, "top")
		must(t, err)
		l := borrow(t, m, "top", write)
		refused(t, export(t, m, "top", client.ExportRequest{Layers: []string{"base"}}), client.CodeInUse)
		l.dial(t)
		l.Close()
		must(t, <-l.ended)
		direct := strings.Count(f.transcript(), `"file":{"cache":{"direct":true}`)
		if top := takesDirect(f.dir + "/dev/sda"); direct > 1 || (direct == 1) != top {
			t.Errorf("%d layers are written past the page cache; it can be passed: %v", direct, top)
		}
		f.fail["qemu-nbd"] = failure("qemu-nbd", -1, "")
		l = borrow(t, m, "top", write)
		if err := <-l.ended; err == nil || !strings.Contains(f.transcript(), "qemu-img check -q -r leaks") {
			t.Errorf("after a program that was killed: %v", err)
		}
	})
}

// TestExportEnds: an export ends with the request, whether or not anybody came.
func TestExportEnds(t *testing.T) {
	f, m := newMachine(t)
	_, err := m.Format(t.Context(), srA, fileConfig(f.dir+"/sr/one"))
	must(t, err)
	_, err = m.Attach(t.Context(), srA, fileConfig(f.dir+"/sr/one"))
	must(t, err)
	create(t, m, "base", "")
	l := borrow(t, m, "base", client.ExportRequest{})
	l.cancel()
	if err := <-l.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("nobody came: %v", err)
	}
	l = borrow(t, m, "base", client.ExportRequest{Writable: true})
	l.dial(t)
	l.cancel()
	l.Close() // as the end of whoever asked closes it
	if err := <-l.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("he went: %v", err)
	}
	l = borrow(t, m, "base", client.ExportRequest{Writable: true})
	l.dial(t)
	if _, err := l.Write([]byte("x")); err != nil {
		t.Error(err)
	}
	if _, err := io.ReadFull(l, make([]byte, 1)); err != nil { // it serves
		t.Error(err)
	}
	m.EndExport(l.ID)
	if err := <-l.ended; err != nil {
		t.Errorf("it was given back: %v", err)
	}
	l.Close()
	l = borrow(t, m, "base", client.ExportRequest{})
	m.EndExport(l.ID)
	if err := <-l.ended; !errors.Is(err, context.Canceled) {
		t.Errorf("it was given back, and nobody had come: %v", err)
	}
	if err := export(t, m, "base", client.ExportRequest{}); err == nil || !strings.Contains(err.Error(), "export volume base: it was begun") {
		t.Errorf("an answer that cannot be sent: %v", err)
	}
	must(t, os.WriteFile(f.dir+"/run/exports/former", nil, 0o600))
	f.manager()
	if left, err := os.ReadDir(f.dir + "/run/exports"); err != nil || len(left) > 0 {
		t.Errorf("%v is left, %v", left, err)
	}
	for range maxLent {
		defer borrow(t, m, "base", client.ExportRequest{}).cancel()
	}
	refused(t, export(t, m, "base", client.ExportRequest{}), client.CodeInUse)
}

func TestExportOfWhatOthersMade(t *testing.T) {
	f, m := newMachine(t)
	f.plant(t, "iso/lib/disc.iso", "disc")
	_, err := m.Attach(t.Context(), srA, client.RepositoryConfig{Type: client.TypeISO, Config: map[string]string{"location": f.dir + "/iso/lib", "legacy_mode": "true"}})
	must(t, err)
	l := borrow(t, m, "disc.iso", client.ExportRequest{})
	l.dial(t)
	l.Close()
	must(t, <-l.ended)
	refused(t, export(t, m, "disc.iso", client.ExportRequest{Writable: true}), client.CodeUnsupported)
}

// TestExportOfAnImageInside: a raw volume may hold an image of a client's, which may
// not refer to anything.
func TestExportOfAnImageInside(t *testing.T) {
	each(t, func(t *testing.T, f *machine, m *Manager, _ client.RepositoryConfig) {
		v, err := m.CreateVolume(t.Context(), srA, "upload", client.VolumeSpec{Size: mib, Format: client.Raw})
		must(t, err)
		as := client.ExportRequest{As: client.Qcow2}
		refused(t, export(t, m, "upload", as), client.CodeDamaged)
		fill := func(args ...string) {
			t.Helper()
			_, err := m.ActivateVolume(t.Context(), srA, "upload")
			must(t, err)
			must(t, f.create(append(append([]string{"create", "-f", "qcow2"}, args...), v.Path, "65536")))
			_, err = m.DeactivateVolume(t.Context(), srA, "upload")
			must(t, err)
		}
		fill("-b", "/etc/shadow", "-F", "raw")
		refused(t, export(t, m, "upload", as), client.CodeDamaged)
		fill()
		refused(t, export(t, m, "upload", client.ExportRequest{As: client.Qcow2, Writable: true}), client.CodeBadRequest)
		refused(t, export(t, m, "upload", client.ExportRequest{As: "vmdk"}), client.CodeBadRequest)
		f.transcript()
		l := borrow(t, m, "upload", as)
		l.dial(t)
		l.Close()
		must(t, <-l.ended)
		if text := f.transcript(); !strings.Contains(text, `"driver":"qcow2"`) || !strings.Contains(text, `"backing":null`) {
			t.Errorf("asked for %s", text)
		}
	})
}
