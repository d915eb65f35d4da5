//go:build lab

package killtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"cairn/image/debian"
	"cairn/init/hostd/client"
	hoststorage "cairn/init/storage"
	"cairn/init/storage/media"
	"cairn/init/storage/repository"
	"cairn/init/storage/tool"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
)

// hostd is the real verbs on volumes, called without a socket in between. Around
// each it gives death a chance.
type hostd struct {
	*repository.Manager
	step func()
	// during is called when a merge begins; it may kill while data is written.
	during func()
}

func (h hostd) FormatRepository(ctx context.Context, sr string, c client.RepositoryConfig) (client.Repository, error) {
	return h.Format(ctx, sr, c)
}

func (h hostd) EraseRepository(ctx context.Context, sr string, c client.RepositoryConfig) error {
	return h.Erase(ctx, sr, c)
}

func (h hostd) AttachRepository(ctx context.Context, sr string, c client.RepositoryConfig) (client.Repository, error) {
	return h.Attach(ctx, sr, c)
}

func (h hostd) DetachRepository(ctx context.Context, sr string) error { return h.Detach(ctx, sr) }

func (h hostd) CommitVolume(ctx context.Context, sr, name string, progress func(float64)) error {
	h.step()
	if progress == nil {
		progress = func(float64) {}
	}
	h.during()
	defer h.step()
	return h.Manager.CommitVolume(ctx, sr, name, progress)
}

func (h hostd) CopyVolume(ctx context.Context, sr, name, toSR, toName string, progress func(float64)) error {
	_, err := h.Manager.CopyVolume(ctx, sr, name, toSR, toName, progress)
	return err
}

func (h hostd) RebaseVolume(ctx context.Context, sr, name, backing string) error {
	h.step()
	defer h.step()
	return h.Manager.RebaseVolume(ctx, sr, name, backing)
}

func (h hostd) DeleteVolume(ctx context.Context, sr, name string) error {
	h.step()
	defer h.step()
	return h.Manager.DeleteVolume(ctx, sr, name)
}

func (h hostd) NoteVolume(ctx context.Context, sr, name, note string) error {
	h.step()
	return h.Manager.NoteVolume(ctx, sr, name, note)
}

// ExportVolume lends a volume out until it is closed.
func (h hostd) ExportVolume(ctx context.Context, sr, name string, req client.ExportRequest) (*client.Lent, error) {
	h.step()
	ready, ended := make(chan client.Export, 1), make(chan error, 1)
	go func() {
		ended <- h.Manager.ExportVolume(context.WithoutCancel(ctx), sr, name, req, func(e client.Export) error { ready <- e; return nil })
	}()
	select {
	case err := <-ended:
		return nil, err
	case e := <-ready:
		end := func() error { h.EndExport(e.ID); return <-ended }
		conn, err := net.Dial("unix", e.Socket)
		if err != nil {
			return nil, errors.Join(err, end())
		}
		return client.NewLent(conn, e.Layers, end), nil
	}
}

var _ storage.Hostd = hostd{}

// world is a toolstack's storage on real images below a directory.
type world struct {
	dir   string
	tools *debian.Tree
	hostd hostd
	db    *db.DB
	m     *storage.Manager
	host  api.HostRef
	sr    api.SRRef
	uuid  string
}

// openWorld is a start of the toolstack, recovery included.
func openWorld(ctx context.Context, tools *debian.Tree, dir string, step, during func()) (*world, error) {
	for _, d := range []string{"sr/one", "mnt", "run"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	programs := tool.Linux{Make: tools.Command}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	w := &world{dir: dir, tools: tools, hostd: hostd{step: step, during: during}}
	w.hostd.Manager = repository.New(repository.Config{
		Tools: programs, Mounter: hoststorage.Linux{LoadModule: func(string) error { return nil }},
		Media:    media.Source{Sys: "/sys", Dev: "/dev", Proc: "/proc", Tools: programs},
		MountDir: dir + "/mnt", Record: dir + "/run/repositories.json", LVMDir: dir + "/run/lvm", ExportDir: dir + "/run/exports",
		FilePrefixes: []string{dir + "/sr"}, Log: log,
	})
	engine, err := openJournal(filepath.Join(dir, "db"), step)
	if err != nil {
		return nil, err
	}
	if w.db, err = db.Open(ctx, engine, db.Options{}); err != nil {
		return nil, err
	}
	w.m = storage.New(storage.Config{DB: w.db, Log: log, Hostd: func(api.HostRef) storage.Hostd { return w.hostd }})
	for ref := range db.All[api.Host](w.db.Snapshot()) {
		w.host = ref
	}
	for ref, sr := range db.All[api.SR](w.db.Snapshot()) {
		w.sr, w.uuid = ref, sr.UUID
	}
	return w, w.m.Recover(ctx)
}

// tries is how often a merge may fail: a program of the process before may take a
// moment to die of its parent's death, and has an image open until then.
const tries = 5

func (w *world) coalesce(ctx context.Context) error {
	for range tries {
		if w.m.Coalesce(ctx, w.sr) {
			return nil
		}
	}
	return errors.New("something is left to coalesce")
}

// size of each disk, and the unit it is written in.
const (
	size    = 16 << 20
	cluster = 64 << 10
)

// content is one byte for each cluster.
type content [size / cluster]byte

// build makes disks, snapshots and clones of them, and destroys some again. It
// returns what those that are left read.
func build(t *testing.T, w *world, random *rand.Rand) map[api.VDIRef]content {
	t.Helper()
	ctx := t.Context()
	config := map[string]string{"location": w.dir + "/sr/one"}
	w.uuid = api.NewUUID()
	if _, err := w.hostd.Format(ctx, w.uuid, client.RepositoryConfig{Type: client.TypeFile, Config: config}); err != nil {
		t.Fatal(err)
	}
	if err := w.m.EnsureDrivers(ctx); err != nil {
		t.Fatal(err)
	}
	err := w.db.Update(ctx, func(tx *db.Tx) error {
		w.host = db.Insert(tx, api.NewHost())
		sr, p := api.NewSR(), api.NewPBD()
		sr.UUID, sr.Type = w.uuid, client.TypeFile
		w.sr = db.Insert(tx, sr)
		p.SR, p.Host, p.DeviceConfig, p.CurrentlyAttached = w.sr, w.host, config, true
		db.Insert(tx, p)
		return nil
	})
	if err == nil {
		err = w.m.Recover(ctx)
	}
	if err != nil {
		t.Fatal(err)
	}
	model := map[api.VDIRef]content{}
	disk, err := w.m.Create(ctx, storage.CreateSpec{SR: w.sr, Size: size, Name: "disk"})
	if err != nil {
		t.Fatal(err)
	}
	model[disk] = w.write(t, disk, content{}, random)
	var gone []api.VDIRef
	for range 3 + random.IntN(3) {
		taken, err := w.m.Snapshot(ctx, []api.VDIRef{disk}, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := taken[disk]
		model[s] = model[disk]
		if random.IntN(3) == 0 {
			c, err := w.m.Clone(ctx, s, "clone")
			if err != nil {
				t.Fatal(err)
			}
			model[c] = w.write(t, c, model[s], random)
			if random.IntN(2) == 0 {
				gone = append(gone, c)
			}
		}
		if random.IntN(4) > 0 {
			gone = append(gone, s)
		}
		model[disk] = w.write(t, disk, model[disk], random)
	}
	for _, ref := range gone {
		if err := w.m.Destroy(ctx, ref); err != nil {
			t.Fatal(err)
		}
		delete(model, ref)
	}
	return model
}

func (w *world) path(ref api.VDIRef) (string, error) {
	d, err := db.Get(w.db.Snapshot(), ref)
	if err != nil {
		return "", err
	}
	v, err := w.hostd.Volume(context.Background(), w.uuid, d.Location)
	return v.Path, err
}

// write is a guest's writes, of bytes nobody wrote there before.
func (w *world) write(t *testing.T, ref api.VDIRef, c content, random *rand.Rand) content {
	t.Helper()
	path, err := w.path(ref)
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"-f", "qcow2"}
	for range 6 {
		at, n := random.IntN(len(c)-16), 1+random.IntN(16)
		value := byte(1 + random.IntN(255))
		for i := range n {
			c[at+i] = value
		}
		args = append(args, "-c", fmt.Sprintf("write -q -P %d %d %d", value, at*cluster, n*cluster))
	}
	w.run(t, "qemu-io", append(args, path)...)
	return c
}

func (w *world) run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := w.tools.Command(t.Context(), name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %q: %v: %s", name, args, err, out)
	}
}

// verify compares every byte of every disk, has every image checked, and looks for
// volumes without rows and rows without volumes.
func (w *world) verify(t *testing.T, model map[api.VDIRef]content) {
	t.Helper()
	raw := filepath.Join(w.dir, "raw")
	rows := map[string]bool{}
	for ref, v := range db.All[api.VDI](w.db.Snapshot()) {
		rows[v.Location] = true
		want, known := model[ref]
		if v.Managed != known {
			t.Errorf("disk %s: managed %v, expected %v", v.UUID, v.Managed, known)
		}
		for key := range v.SMConfig {
			if strings.HasPrefix(key, "cairn:") && key != "cairn:layer" {
				t.Errorf("disk %s is left with %s=%s", v.UUID, key, v.SMConfig[key])
			}
		}
		if !known {
			continue
		}
		path, err := w.path(ref)
		if err != nil {
			t.Fatal(err)
		}
		w.run(t, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", path, raw)
		got, err := os.ReadFile(raw)
		if err != nil {
			t.Fatal(err)
		}
		compare(t, v.UUID, got, want)
	}
	for ref := range model {
		if _, err := db.Get(w.db.Snapshot(), ref); err != nil {
			t.Errorf("disk %s is lost", ref)
		}
	}
	w.checkVolumes(t, rows)
}

func compare(t *testing.T, name string, got []byte, want content) {
	t.Helper()
	if len(got) != size {
		t.Fatalf("disk %s has %d bytes", name, len(got))
	}
	for i, b := range want {
		if part := got[i*cluster : (i+1)*cluster]; !bytes.Equal(part, bytes.Repeat([]byte{b}, cluster)) {
			t.Fatalf("disk %s: cluster %d is not all %#x but begins with %#x", name, i, b, part[0])
		}
	}
}

func (w *world) checkVolumes(t *testing.T, rows map[string]bool) {
	t.Helper()
	volumes, err := w.hostd.Volumes(t.Context(), w.uuid)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range volumes {
		if !rows[v.Name] {
			t.Errorf("volume %s has no row", v.Name)
		}
		delete(rows, v.Name)
		w.run(t, "qemu-img", "check", "-q", "-f", "qcow2", v.Path)
	}
	for name := range rows {
		t.Errorf("row of %s has no volume", name)
	}
}

// die ends this process as a power cut of the process would.
func die() {
	_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
	time.Sleep(time.Hour)
}
