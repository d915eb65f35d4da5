package storage_test

import (
	"context"
	"fmt"
	"path"
	"sync"

	"cairn/toolstack/hypervisor"
	"cairn/toolstack/storage/storagetest"
)

// domains is a hypervisor of which only the disks are there: each domain has one,
// and writes go to its top layer.
type domains struct {
	mu    sync.Mutex
	hostd *storagetest.Hostd
	all   map[string]*domain
	// during, when set, is called in the middle of a Snapshot ("snapshot") or of a
	// Commit before and after the domain moves ("ready", "moved").
	during func(what string) error
	// before is called when a Commit begins, after when a Snapshot has been taken.
	before, after func()
	// late makes the next Snapshot take effect only when Settled is asked, as one whose
	// caller has hung up.
	late bool
	// resize, when set, is what happens instead when a domain is told that a disk grows.
	resize          func(vm string, bytes int64) error
	underWay        func()
	grown           map[string]int64
	pauses, resumes int
}

type domain struct {
	disk   hypervisor.Disk
	sr     string
	paused bool
}

func newDomains(h *storagetest.Hostd) *domains {
	return &domains{hostd: h, all: map[string]*domain{}, grown: map[string]int64{}}
}

func (d *domains) start(vm, vbd, sr string, s hypervisor.Source) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all[vm] = &domain{disk: hypervisor.Disk{ID: vbd, Source: &s}, sr: sr}
}

func (d *domains) stop(vm string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.all, vm)
}

func (d *domains) find(vm string) (*domain, error) {
	if g := d.all[vm]; g != nil {
		return g, nil
	}
	return nil, fmt.Errorf("domain %s: %w", vm, hypervisor.ErrNotFound)
}

// write is what the guest writes.
func (d *domains) write(vm string, cluster int64, value uint64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	g, err := d.find(vm)
	if err != nil {
		return err
	}
	if g.paused {
		return fmt.Errorf("domain %s is paused", vm)
	}
	return d.hostd.Write(g.sr, path.Base(g.disk.Source.Path), cluster, value)
}

// Settled ends what was answered too early.
func (d *domains) Settled(_ context.Context, vm string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.underWay != nil {
		d.underWay()
		d.underWay = nil
	}
	_, err := d.find(vm)
	return err
}

func (d *domains) Hardware(_ context.Context, vm string) (hypervisor.Hardware, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g, err := d.find(vm)
	if err != nil {
		return hypervisor.Hardware{}, err
	}
	return hypervisor.Hardware{Disks: []hypervisor.Disk{g.disk}}, nil
}

func (d *domains) ResizeDisk(_ context.Context, vm, id string, bytes int64) error {
	if d.resize != nil {
		return d.resize(vm, bytes)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.grown[id] = bytes
	_, err := d.find(vm)
	return err
}

func (d *domains) say(what string) error {
	if d.during == nil {
		return nil
	}
	return d.during(what)
}

func (d *domains) Snapshot(_ context.Context, vm string, o []hypervisor.Overlay) error {
	if d.after != nil {
		defer d.after()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	g, err := d.find(vm)
	if err != nil {
		return err
	}
	if o[0].ID != g.disk.ID || o[0].Source.Backing == nil || o[0].Source.Backing.Path != g.disk.Source.Path {
		return fmt.Errorf("overlay %+v is not on the disk's layer %s", o[0], g.disk.Source.Path)
	}
	s := o[0].Source
	if d.late {
		d.late, d.underWay = false, func() { g.disk.Source = &s }
		return hypervisor.ErrUnknownOutcome
	}
	g.disk.Source = &s
	return d.say("snapshot")
}

func (d *domains) Commit(ctx context.Context, vm, _ string, progress func(float64)) error {
	d.mu.Lock()
	g, err := d.find(vm)
	if err != nil {
		d.mu.Unlock()
		return err
	}
	top := path.Base(g.disk.Source.Path)
	d.mu.Unlock()
	if d.before != nil {
		d.before()
	}
	if err := d.hostd.CommitVolume(ctx, g.sr, top, nil); err != nil {
		return err
	}
	if progress != nil {
		progress(1)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.say("ready"); err != nil {
		return err
	}
	if err := d.hostd.CommitVolume(ctx, g.sr, top, nil); err != nil { // what was written meanwhile
		return err
	}
	g.disk.Source = g.disk.Source.Backing
	return d.say("moved")
}

func (d *domains) Pause(_ context.Context, vm string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	g, err := d.find(vm)
	if err == nil {
		g.paused, d.pauses = true, d.pauses+1
	}
	return err
}

func (d *domains) Resume(_ context.Context, vm string) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	g, err := d.find(vm)
	if err == nil {
		g.paused = false
		d.resumes++
	}
	return err
}
