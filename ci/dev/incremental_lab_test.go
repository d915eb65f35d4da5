//go:build lab

package main

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"io"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"cairn/ci/lab/demo"
	"cairn/ci/lab/inside"
	"cairn/ci/lab/life"
	"cairn/image/guest/agent"
	cbt "cairn/toolstack/storage/changes"
)

// The guest writes in a window of its disk, which moves with each generation, so that
// much of the disk has not changed since the last one however quick the guest is.
const (
	backedUp    = 192 * mib
	window      = 24 // MiB
	windowStep  = 16
	burst       = 32 // writes of one command
	generations = 10
)

// TestDevIncremental backs a disk up by its changed blocks over NBD with TLS, ten times
// while its guest writes to it without pause and loses its power once. Each generation,
// put together from the first one and what was read since, is equal to its snapshot; the
// last one, at rest, to what the guest wrote.
func TestDevIncremental(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	d, _ := fresh(t)
	b := newBackups(ctx, d)
	w := b.write(ctx, life.Up(ctx, t, b.guest))
	for g := range generations {
		w.at.Store(int64(g * windowStep))
		if g == generations/2 {
			w = b.powerCycle(ctx, w)
		}
		w.goesOn(t)
		b.back(ctx, g)
	}
	tty := w.rest()
	b.back(ctx, generations)
	wrote := sha256.Sum256(b.model)
	if b.all[generations].sum != wrote {
		t.Error("the last snapshot is not what the guest wrote")
	}
	if got := tty.Sum(ctx, t, b.serial); got != fmt.Sprintf("%x", wrote) {
		t.Errorf("the guest reads %s, and wrote %x", got, wrote)
	}
	d.must(b.guest.HardShutdown(ctx))
	life.Sound(ctx, b.API, b.host)
	b.restore(ctx)
	b.end(ctx)
}

// backups is a guest with a disk that is backed up, and what was read of it.
type backups struct {
	life.API
	host    inside.Namespaces
	before  life.Census
	network string
	sr, vdi string
	serial  string
	guest   *demo.Guest
	model   []byte // what the guest has written
	seed    int64
	last    string // the newest snapshot
	dir     string
	all     []backup
}

// backup is one generation: what its snapshot held, and a file with the blocks that
// had changed.
type backup struct {
	sum     [sha256.Size]byte
	changed *cbt.Map
	file    string
}

func newBackups(ctx context.Context, d *instance) *backups {
	d.Helper()
	b := &backups{API: life.API{T: d.T, Client: d.login()}, host: d.inside(), model: make([]byte, backedUp), dir: d.TempDir()}
	b.network = b.First(ctx, "network.get_all")
	b.before = life.Count(ctx, b.API, b.host)
	b.Call(ctx, nil, "network.add_purpose", b.network, "nbd")
	b.sr = b.Repository(ctx, "file", map[string]string{"location": "/state/sr/backed-up"})
	var err error
	b.guest, err = demo.Create(ctx, b.Client, "backed up")
	d.must(err)
	system, _ := b.Disk(ctx, b.sr, "system", 16*mib)
	b.Drive(ctx, b.guest.Ref, system, "0", "Disk")
	b.vdi, b.serial = b.Disk(ctx, b.sr, "data", backedUp)
	b.Drive(ctx, b.guest.Ref, b.vdi, "1", "Disk")
	b.Call(ctx, nil, "VDI.enable_cbt", b.vdi)
	return b
}

// writer has the guest write, one command after another.
type writer struct {
	tty  life.Keyboard
	at   atomic.Int64  // where the window begins, in MiB
	told chan struct{} // after each command, if somebody waits
	stop chan struct{}
	done chan struct{}
	err  error // once done
}

// write starts a writer. What it has the guest write it writes to the model as well.
func (b *backups) write(ctx context.Context, tty life.Keyboard) *writer {
	w := &writer{tty: tty, told: make(chan struct{}), stop: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(w.done)
		for w.err == nil {
			select {
			case <-w.stop:
				return
			case w.told <- struct{}{}:
			default:
			}
			b.seed++
			w.err = b.scatter(ctx, w)
		}
	}()
	return w
}

func (b *backups) scatter(ctx context.Context, w *writer) error {
	at := w.at.Load()
	if _, err := w.tty.Tell(ctx, "scatter %s %d %d %d %d", b.serial, b.seed, burst, at, window); err != nil {
		return err
	}
	return agent.Scattered(b.seed, burst, at*mib, window*mib, func(p []byte, off int64) error {
		copy(b.model[off:], p)
		return nil
	})
}

// goesOn returns when the guest has written something since it was called.
func (w *writer) goesOn(t *testing.T) {
	t.Helper()
	for range 2 { // the first command may have been under way
		select {
		case <-w.told:
		case <-w.done:
			t.Fatalf("the guest stopped writing: %v", w.err)
		}
	}
}

// rest returns when the guest has written what it was told last.
func (w *writer) rest() life.Keyboard {
	close(w.stop)
	<-w.done
	return w.tty
}

// powerCycle takes the guest's power away and gives it back. All that it was told is on
// its disk by then, as each of its writes is synchronous.
func (b *backups) powerCycle(ctx context.Context, w *writer) *writer {
	b.T.Helper()
	at := w.at.Load()
	w.rest()
	b.must(w.err)
	b.must(b.guest.HardShutdown(ctx))
	life.Sound(ctx, b.API, b.host)
	next := b.write(ctx, life.Up(ctx, b.T, b.guest))
	next.at.Store(at)
	return next
}

// back makes a generation: a snapshot, of it what has changed since the last one, which
// then lets go of its bytes.
func (b *backups) back(ctx context.Context, g int) {
	b.T.Helper()
	begin := time.Now()
	snapshot := b.snapshot(ctx, g)
	changed := b.changed(ctx, snapshot)
	disk := b.open(ctx, snapshot)
	next := backup{changed: changed, file: filepath.Join(b.dir, fmt.Sprint(g))}
	read := b.save(disk, next)
	h := sha256.New()
	_, err := io.CopyBuffer(h, io.NewSectionReader(disk, 0, disk.Size()), make([]byte, mib))
	b.must(err)
	next.sum = [sha256.Size]byte(h.Sum(nil))
	if err := disk.Close(); err != nil {
		b.T.Error(err)
	}
	if b.last != "" {
		b.Call(ctx, nil, "VDI.data_destroy", b.last)
	}
	if g == 3 {
		b.convert(ctx, snapshot, next.sum)
	}
	b.last, b.all = snapshot, append(b.all, next)
	b.T.Logf("generation %d: %d blocks of %d KiB read of %d, %s", g, read, cbt.Block>>10, backedUp/cbt.Block, time.Since(begin).Round(time.Millisecond))
	if g > 0 && (read == 0 || read > backedUp/cbt.Block/2) {
		b.T.Errorf("%d blocks have changed", read)
	}
}

func (b *backups) must(err error) {
	b.T.Helper()
	if err != nil {
		b.T.Fatal(err)
	}
}

// snapshot is one of the disk alone, and every other time one of its machine.
func (b *backups) snapshot(ctx context.Context, g int) string {
	b.T.Helper()
	if g%2 == 0 {
		return b.Ref(ctx, "VDI.snapshot", b.vdi, map[string]string{})
	}
	machine := b.Ref(ctx, "VM.snapshot", b.guest.Ref, fmt.Sprint("generation ", g))
	var vbds []string
	b.Call(ctx, &vbds, "VM.get_VBDs", machine)
	for _, vbd := range vbds {
		vdi := b.Ref(ctx, "VBD.get_VDI", vbd)
		if b.Ref(ctx, "VDI.get_snapshot_of", vdi) == b.vdi {
			return vdi
		}
	}
	b.T.Fatal("the machine's snapshot has none of the disk")
	return ""
}

// changed are the blocks to read: all of them for the first generation.
func (b *backups) changed(ctx context.Context, snapshot string) *cbt.Map {
	b.T.Helper()
	if b.last == "" {
		all, err := cbt.New(backedUp)
		b.must(err)
		all.Mark(0, backedUp)
		return all
	}
	bits, err := base64.StdEncoding.DecodeString(b.Text(ctx, "VDI.list_changed_blocks", b.last, snapshot))
	b.must(err)
	changed, err := cbt.FromBits(backedUp, bits)
	b.must(err)
	return changed
}

// end destroys everything; nothing of it is left.
func (b *backups) end(ctx context.Context) {
	b.T.Helper()
	if files, err := b.host.Files(ctx, "/run/cairn/exports"); err != nil || len(files) > 1 {
		b.T.Errorf("lent out are %q, %v", files, err)
	}
	b.Clear(ctx, b.guest.Ref, b.sr)
	b.Call(ctx, nil, "network.remove_purpose", b.network, "nbd")
	life.NothingBeyond(ctx, b.API, b.host, b.before)
}
