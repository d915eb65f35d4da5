package storage

import (
	"context"
	"errors"
	"strconv"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// A volume grows by what hostd does and, under a domain, by what that does, and the row
// follows. In between they differ; a row that is smaller would make each layer put on
// the volume too small. So the row says first that its size is not certain, and whoever
// comes to it then, also after a crash, writes down what the volume says.

// sizingKey of sm_config is the size a disk was to get when last heard of.
const sizingKey = "cairn:sizing"

// backendSize is the number of the error for a size that cannot be.
const backendSize = 79

// unsized: a disk's size is not certain, and no operation of this process answers for it.
func unsized(disk *api.VDI) bool {
	for _, op := range disk.CurrentOperations {
		if op == api.VDIOperationsResize || op == api.VDIOperationsResizeOnline {
			return false
		}
	}
	return disk.SMConfig[sizingKey] != ""
}

// resize makes a disk larger; online under a running domain, which is told.
func (m *Manager) resize(ctx context.Context, vdi api.VDIRef, size int64, op api.VDIOperations, task string) error {
	at, err := m.reachDisk(vdi, "")
	if err != nil {
		return err
	}
	if size <= 0 || size > maxDisk {
		return backend(backendSize, "VDI Invalid size [opterr="+strconv.FormatInt(size, 10)+"]")
	}
	_, done, err := m.hold(ctx, vdi, op, task)
	if err != nil {
		return err
	}
	defer done()
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return err
	}
	size = sizeOf(disk.Sharable, size)
	switch {
	case size < disk.VirtualSize:
		return backend(backendSize, "VDI Invalid size [opterr=shrinking not allowed]")
	case disk.IsASnapshot || disk.ReadOnly || len(children(snap, disk)) > 0:
		return api.ErrVDIReadonly(vdi.String())
	case size == disk.VirtualSize:
		return nil
	}
	err = db.Modify(ctx, m.cfg.DB, vdi, func(_ *db.Tx, d *api.VDI) error {
		d.SMConfig = amend(d.SMConfig, sizingKey, strconv.FormatInt(size, 10))
		return nil
	})
	if err != nil {
		return err
	}
	err = m.enlarge(ctx, at, vdi, disk, size)
	m.after(ctx, at, vdi)
	return err
}

// enlarge is done when the volume says so, whatever was answered on the way. The domain
// that was to write the new size may go before it has: then there is none in the way of
// another attempt.
func (m *Manager) enlarge(ctx context.Context, at repository, vdi api.VDIRef, disk *api.VDI, size int64) (failed error) {
	for range 2 {
		_, err := at.hostd.ResizeVolume(ctx, at.uuid, disk.Location, size)
		m.noSpace(ctx, at, err)
		if err = m.placed(at, vdi, "resize", size-disk.VirtualSize).failed(err); err == nil {
			err = m.tellDomains(ctx, vdi, size)
		}
		is, unknown := m.writeSize(ctx, at, vdi, func(*api.VDI) bool { return true })
		switch {
		case unknown == nil && is >= size:
			return nil
		case unknown != nil:
			m.cfg.Log.Warn("vdi-size-later", "vdi", vdi, "err", unknown)
			time.AfterFunc(repairRetry, m.poke)
			return errors.Join(err, place{sr: at.ref, vdi: vdi, op: "resize"}.failed(unknown))
		case err != nil && !isCode(err, api.CodeVMBadPowerState):
			return err
		}
		if failed = err; failed == nil {
			failed = backend(backendVDIUnavailable, "The VDI is not available [opterr=its size did not change]")
		}
	}
	return failed
}

// tellDomains tells who runs with a disk that it has grown.
func (m *Manager) tellDomains(ctx context.Context, vdi api.VDIRef, size int64) error {
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil || len(users(disk)) == 0 {
		return err
	}
	for _, u := range usesOf(snap, disk) {
		d := m.cfg.Domains(u.host)
		if d == nil {
			return api.ErrHostOffline(u.host.String())
		}
		err := d.ResizeDisk(ctx, u.vm, u.id, size)
		if err == nil {
			continue
		}
		hardware, lost := d.Hardware(ctx, u.vm)
		if errors.Is(lost, hypervisor.ErrNotFound) {
			return api.ErrVMBadPowerState(u.ref.String(), "running", "halted")
		}
		if _, has := hardware.Disk(u.id); lost == nil && !has {
			continue // it was unplugged
		}
		return backend(backendVDIUnavailable, "The VDI is not available [opterr="+err.Error()+"]")
	}
	return nil
}

// settleSize ends an uncertainty about a disk's size that no operation of this process
// answers for.
func (m *Manager) settleSize(ctx context.Context, at repository, vdi api.VDIRef) error {
	_, err := m.writeSize(ctx, at, vdi, unsized)
	return ignoreGone(err)
}

// writeSize writes to the row, if that may be, what size the volume has, when nothing
// changes it any more.
func (m *Manager) writeSize(ctx context.Context, at repository, vdi api.VDIRef, may func(*api.VDI) bool) (size int64, err error) {
	ctx, cancel := finishing(ctx)
	defer cancel()
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return 0, err
	}
	for _, u := range usesOf(snap, disk) {
		d := m.cfg.Domains(u.host)
		if d == nil {
			continue
		}
		if err := d.Settled(ctx, u.vm); err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
			return 0, err
		}
	}
	v, err := at.hostd.ActivateVolume(ctx, at.uuid, disk.Location) // which reads what QEMU wrote
	if err != nil {
		return 0, err
	}
	if disk, err = db.Get(m.cfg.DB.Snapshot(), vdi); err == nil && len(users(disk)) == 0 {
		if _, err := at.hostd.DeactivateVolume(ctx, at.uuid, disk.Location); err != nil {
			return 0, err
		}
	}
	return v.VirtualSize, db.Modify(ctx, m.cfg.DB, vdi, func(_ *db.Tx, d *api.VDI) error {
		if d.Location == v.Name && may(d) {
			d.VirtualSize, d.SMConfig = v.VirtualSize, amend(d.SMConfig, sizingKey, "")
		}
		return nil
	})
}

// sizedBefore makes the size of a disk certain before an operation on it begins.
func (m *Manager) sizedBefore(ctx context.Context, vdi api.VDIRef) error {
	disk, err := db.Get(m.cfg.DB.Snapshot(), vdi)
	if err != nil || !unsized(disk) {
		return err
	}
	at, err := m.reachDisk(vdi, "")
	if err == nil {
		err = place{sr: at.ref, vdi: vdi, op: "resize"}.failed(m.settleSize(ctx, at, vdi))
	}
	return err
}
