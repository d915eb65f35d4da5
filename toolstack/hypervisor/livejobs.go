package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"
)

// Snapshot implements Devices. libvirt switches all disks in one transaction of
// QEMU's, which is all or nothing.
func (l *Libvirt) Snapshot(ctx context.Context, uuid string, overlays []Overlay) error {
	h, err := l.Hardware(ctx, uuid)
	if err != nil {
		return err
	}
	if err := checkOverlays(h, overlays); err != nil {
		return fmt.Errorf("snapshot %s: %w", uuid, err)
	}
	if len(overlays) == 0 {
		return nil
	}
	x, err := snapshotXML(h, overlays)
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", uuid, err)
	}
	const flags = golibvirt.DomainSnapshotCreateDiskOnly | golibvirt.DomainSnapshotCreateReuseExt |
		golibvirt.DomainSnapshotCreateNoMetadata | golibvirt.DomainSnapshotCreateAtomic
	return l.job(ctx, "snapshot", uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		_, err := c.DomainSnapshotCreateXML(d, x, uint32(flags))
		return err
	})
}

// snapshotXML names every disk: what is not named libvirt would snapshot too, into
// files of its own choice.
func snapshotXML(h Hardware, overlays []Overlay) (string, error) {
	to := map[string]Source{}
	for _, o := range overlays {
		to[o.ID] = o.Source
	}
	s := libvirtxml.DomainSnapshot{Disks: &libvirtxml.DomainSnapshotDisks{}}
	for _, d := range h.Disks {
		x := libvirtxml.DomainSnapshotDisk{Name: d.Device, Snapshot: "no"}
		if o, ok := to[d.ID]; ok {
			x.Snapshot, x.Driver, x.Source = "external", &libvirtxml.DomainDiskDriver{Type: string(o.Format)}, sourceXML(o)
		}
		s.Disks.Disks = append(s.Disks.Disks, x)
	}
	return s.Marshal()
}

// progressInterval is how often a block job is asked how far it is; libvirt tells
// only that one has ended.
const progressInterval = 100 * time.Millisecond

// Commit implements Devices. When the context ends the job is called off: the
// overlay stays the disk's source, and what was written beneath is of no harm,
// because the overlay still covers it.
func (l *Libvirt) Commit(ctx context.Context, uuid, id string, progress func(float64)) error {
	disk, err := l.disk(ctx, uuid, id)
	if err != nil {
		return err
	}
	if disk.Source == nil || disk.Source.Backing == nil {
		return fmt.Errorf("commit disk %s of %s: nothing beneath: %w", id, uuid, ErrBadState)
	}
	job := blockJob{Libvirt: l, uuid: uuid, disk: disk}
	if err := job.start(ctx); err != nil {
		return err
	}
	tick := time.NewTicker(progressInterval)
	defer tick.Stop()
	for {
		done, err := job.step(ctx, progress)
		if done || err != nil && ctx.Err() == nil {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("commit disk %s of %s: %w", id, uuid, context.Cause(ctx)), job.cancel())
		}
	}
}

// blockJob is an active commit.
type blockJob struct {
	*Libvirt
	uuid string
	disk Disk // as it was before
}

func (j blockJob) run(ctx context.Context, what string, f func(*golibvirt.Libvirt, golibvirt.Domain) error) error {
	return j.job(ctx, what+" "+j.disk.ID+" of", j.uuid, f)
}

// start begins the job, or finds the one a caller left behind.
func (j blockJob) start(ctx context.Context) error {
	if there, _, err := j.state(ctx); there || err != nil {
		return err
	}
	return j.run(ctx, "commit disk", func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		return c.DomainBlockCommit(d, j.disk.Device, nil, nil, 0, golibvirt.DomainBlockCommitShallow|golibvirt.DomainBlockCommitActive)
	})
}

// state says whether the job is there, and which part of it is done.
func (j blockJob) state(ctx context.Context) (there bool, part float64, err error) {
	err = j.run(ctx, "block job of disk", func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		found, _, _, cur, end, err := c.DomainGetBlockJobInfo(d, j.disk.Device, 0)
		there = found != 0
		if end > 0 {
			part = float64(cur) / float64(end)
		}
		return err
	})
	return there, part, err
}

// step looks at the job and pivots when all is copied. Until QEMU has said so too,
// libvirt answers that the job is not ready.
func (j blockJob) step(ctx context.Context, progress func(float64)) (done bool, err error) {
	there, part, err := j.state(ctx)
	if err != nil {
		return false, err
	}
	if !there {
		return true, j.ended(ctx)
	}
	if progress != nil {
		progress(part)
	}
	if part < 1 || ctx.Err() != nil {
		return false, nil
	}
	err = j.run(ctx, "pivot disk", func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		return c.DomainBlockJobAbort(d, j.disk.Device, golibvirt.DomainBlockJobAbortPivot)
	})
	if errors.Is(err, ErrBusy) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, j.ended(ctx)
}

// ended says how a job that is gone has ended, by what the disk has now.
func (j blockJob) ended(ctx context.Context) error {
	now, err := j.Libvirt.disk(ctx, j.uuid, j.disk.ID)
	if err != nil {
		return err
	}
	if !now.Source.Equal(j.disk.Source.Backing) {
		return fmt.Errorf("commit disk %s of %s: the job has failed", j.disk.ID, j.uuid)
	}
	return nil
}

func (j blockJob) cancel() error {
	ctx, cancel := context.WithTimeout(context.Background(), j.cfg.Limits.Job)
	defer cancel()
	return j.run(ctx, "cancel commit of disk", func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		return c.DomainBlockJobAbort(d, j.disk.Device, 0)
	})
}

// Save implements Devices. A context that ends calls it off, and the domain goes on.
func (l *Libvirt) Save(ctx context.Context, uuid, path string) error {
	if err := checkPath("file", path); err != nil {
		return err
	}
	d, err := domainRef(uuid)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("save %s: %w", uuid, err)
	}
	stop := context.AfterFunc(ctx, func() { // libvirt then ends the call below
		_ = l.job(context.WithoutCancel(ctx), "cancel save", uuid, (*golibvirt.Libvirt).DomainAbortJob)
	})
	defer stop()
	return l.owner.long(context.WithoutCancel(ctx), l.saving(), "save "+uuid, func(c *golibvirt.Libvirt) error {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return c.DomainSaveFlags(d, path, nil, 0)
	})
}

// Whole implements Devices. libvirt writes into a file's head that it is complete
// once all that follows is on the medium.
func (l *Libvirt) Whole(ctx context.Context, uuid, path string) (bool, error) {
	saved, err := l.savedXML(ctx, path)
	var refused golibvirt.Error
	if errors.As(err, &refused) && golibvirt.ErrorNumber(refused.Code) == golibvirt.ErrOperationFailed {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	var d libvirtxml.Domain
	return d.Unmarshal(saved) == nil && d.UUID == uuid, nil
}

// savedXML is the domain that a file says it holds.
func (l *Libvirt) savedXML(ctx context.Context, path string) (saved string, err error) {
	if err := checkPath("file", path); err != nil {
		return "", err
	}
	err = l.owner.call(ctx, l.work(), "read "+path, func(c *golibvirt.Libvirt) (err error) {
		saved, err = c.DomainSaveImageGetXMLDesc(path, uint32(golibvirt.DomainSaveImageXMLSecure))
		return err
	})
	return saved, err
}

func (l *Libvirt) saving() limit { return limit{after: l.cfg.Limits.Save} }

// Restore implements Devices. What the guest sees is in the file; what of the host
// it lies on is taken from the spec.
func (l *Libvirt) Restore(ctx context.Context, path string, spec Spec, paused bool) error {
	if err := spec.Check(); err != nil {
		return err
	}
	saved, err := l.savedXML(ctx, path)
	if err != nil {
		return err
	}
	x, err := resourcedXML(saved, spec)
	if err != nil {
		return fmt.Errorf("restore %s: %s: %w", spec.UUID, path, err)
	}
	flags := golibvirt.DomainSaveRunning
	if paused {
		flags = golibvirt.DomainSavePaused
	}
	err = l.owner.long(ctx, l.saving(), "restore "+spec.UUID, func(c *golibvirt.Libvirt) error {
		return c.DomainRestoreFlags(path, golibvirt.OptString{x}, uint32(flags))
	})
	if errors.Is(err, ErrBadState) {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	return err
}

// resourcedXML puts the disks and NICs of a saved domain on what the spec names.
func resourcedXML(saved string, spec Spec) (string, error) {
	var d libvirtxml.Domain
	if err := d.Unmarshal(saved); err != nil {
		return "", err
	}
	if d.UUID != spec.UUID || d.Devices == nil {
		return "", fmt.Errorf("%w: the file holds domain %q", ErrNotFound, d.UUID)
	}
	fresh := Hardware{Disks: spec.Disks, NICs: spec.NICs}
	d.Title = title(spec.Title)
	for i := range d.Devices.Disks {
		x := &d.Devices.Disks[i]
		n, ok := fresh.Disk(idOf(x.Alias))
		if !ok {
			continue
		}
		y := diskXML(n, 0)
		x.Source, x.BackingStore, x.Driver = y.Source, y.BackingStore, y.Driver
	}
	for i := range d.Devices.Interfaces {
		x := &d.Devices.Interfaces[i]
		n, ok := fresh.NIC(idOf(x.Alias))
		if !ok {
			continue
		}
		y := nicXML(n, 0)
		x.Source, x.Target, x.Link = y.Source, y.Target, y.Link
	}
	return d.Marshal()
}

// Erase implements Devices. libvirt drops what it keeps of a domain only with the
// domain's definition, so one is made, to be removed at once.
func (l *Libvirt) Erase(ctx context.Context, uuid string) error {
	ref, err := domainRef(uuid)
	if err != nil {
		return err
	}
	x, err := l.cfg.shellXML(uuid)
	if err != nil {
		return err
	}
	err = l.owner.call(ctx, l.work(), "erase "+uuid, func(c *golibvirt.Libvirt) error {
		state, _, err := c.DomainGetState(ref, 0)
		if err == nil && stateOf(golibvirt.DomainState(state)) != "" && golibvirt.DomainState(state) != golibvirt.DomainShutoff {
			return golibvirt.Error{Code: uint32(golibvirt.ErrOperationInvalid), Message: "the domain runs"}
		}
		d, err := c.DomainDefineXML(x)
		if err != nil {
			return err
		}
		return c.DomainUndefineFlags(d, golibvirt.DomainUndefineNvram|golibvirt.DomainUndefineTpm)
	})
	if err != nil {
		return err
	}
	return l.cfg.removeScreen(uuid)
}

// removeScreen takes away the socket of a machine's screen: QEMU leaves it when it ends.
func (c Config) removeScreen(uuid string) error {
	if err := os.Remove(c.graphicsPath(uuid)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("screen of domain %s: %w", uuid, err)
	}
	return nil
}

// shellXML is a domain with nothing but what outlives a run.
func (c Config) shellXML(uuid string) (string, error) {
	s := Spec{UUID: uuid, Kind: Emulated, Machine: DefaultMachine, Firmware: UEFI}
	d := libvirtxml.Domain{
		Type: string(s.Kind), Name: uuid, UUID: uuid,
		Memory:   &libvirtxml.DomainMemory{Value: minMemory >> 10, Unit: "KiB"},
		OS:       c.bootOS(s),
		Features: features(s),
		Devices:  &libvirtxml.DomainDeviceList{Emulator: c.Emulator, TPMs: []libvirtxml.DomainTPM{tpm()}},
	}
	d.OS.SMBios = nil
	return d.Marshal()
}

// DialVNC implements Devices.
func (l *Libvirt) DialVNC(ctx context.Context, uuid string) (net.Conn, error) {
	return l.dialSocket(ctx, "graphics", uuid, l.cfg.graphicsPath(uuid))
}

// dialSocket opens a socket of a domain's.
func (l *Libvirt) dialSocket(ctx context.Context, what, id, path string) (net.Conn, error) {
	if _, err := domainRef(id); err != nil { // before it becomes part of a path
		return nil, err
	}
	d := net.Dialer{Timeout: l.cfg.Limits.Connect}
	conn, err := d.DialContext(ctx, "unix", filepath.Join(l.cfg.Root, path))
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: %s of %s: %w", ErrNotFound, what, id, err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", what, id, err)
	}
	return conn, nil
}
