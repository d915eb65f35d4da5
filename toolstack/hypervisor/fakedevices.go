package hypervisor

import (
	"context"
	"fmt"
	"slices"
)

// HoldDevices makes a guest keep the devices it is asked for, or give them up again.
func (f *Fake) HoldDevices(uuid string, hold bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.holds[uuid] = hold
}

// FailWrite pauses a guest as a failed write to a disk does.
func (f *Fake) FailWrite(uuid, disk string, why Reason) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.domains[uuid]; d != nil && d.state == Running {
		d.state, d.ioError = Paused, true
		f.events.publish(Event{Kind: PausedE, UUID: uuid})
		f.events.publish(Event{Kind: IOError, UUID: uuid, Reason: why, Device: disk})
	}
}

// DiskSize is what ResizeDisk last made of a disk, or 0.
func (f *Fake) DiskSize(uuid, id string) int64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.domains[uuid]; d != nil {
		return d.sizes[id]
	}
	return 0
}

// Saved says what a file holds that Save wrote to its end.
func (f *Fake) Saved(path string) (Spec, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.saved[path]
	return s.spec, ok && !s.torn
}

// Tear makes a file one that Save has begun to write and not finished, or that a
// power cut has left so.
func (f *Fake) Tear(uuid, path string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.saved[path]
	if s.torn = true; s.spec.UUID == "" {
		s.spec.UUID = uuid
	}
	f.saved[path] = s
}

// CopySaved is what a copy of such a file, made by another, amounts to.
func (f *Fake) CopySaved(from, to string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if s, ok := f.saved[from]; ok {
		f.saved[to] = s
	}
}

// SetMemoryStats replaces what a guest reports, which otherwise obeys its target.
func (f *Fake) SetMemoryStats(uuid string, m MemoryStats) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if d := f.domains[uuid]; d != nil {
		d.memory = &m
	}
}

// clone copies a spec down to the last backing image.
func (s Spec) clone() Spec {
	s.BootOrder = slices.Clone(s.BootOrder)
	s.NICs = slices.Clone(s.NICs)
	s.Disks = slices.Clone(s.Disks)
	for i := range s.Disks {
		s.Disks[i].Source = s.Disks[i].Source.clone()
	}
	return s
}

// disk finds a disk to change.
func (d *fakeDomain) disk(id string) (*Disk, error) {
	i := slices.IndexFunc(d.spec.Disks, func(x Disk) bool { return x.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("disk %s: %w", id, ErrNotFound)
	}
	return &d.spec.Disks[i], nil
}

func (d *fakeDomain) nic(id string) (*NIC, error) {
	i := slices.IndexFunc(d.spec.NICs, func(x NIC) bool { return x.ID == id })
	if i < 0 {
		return nil, fmt.Errorf("nic %s: %w", id, ErrNotFound)
	}
	return &d.spec.NICs[i], nil
}

// try is on with an act that may fail.
func (f *Fake) try(ctx context.Context, method, uuid string, act func(*fakeDomain) error) error {
	var failed error
	err := f.on(ctx, method, uuid, "", func(d *fakeDomain) { failed = act(d) })
	if err != nil {
		return err
	}
	if failed != nil {
		return fmt.Errorf("%s %s: %w", method, uuid, failed)
	}
	return nil
}

// Hardware implements Devices.
func (f *Fake) Hardware(ctx context.Context, uuid string) (h Hardware, err error) {
	err = f.on(ctx, "Hardware", uuid, "", func(d *fakeDomain) {
		s := d.spec.clone()
		h = Hardware{Disks: s.Disks, NICs: s.NICs, VCPUs: s.VCPUs}
	})
	return h, err
}

// AttachDisk implements Devices.
func (f *Fake) AttachDisk(ctx context.Context, uuid string, disk Disk) error {
	return f.try(ctx, "AttachDisk", uuid, func(d *fakeDomain) error {
		if disk.Bus != SCSI {
			return ErrUnsupported
		}
		if slices.ContainsFunc(d.spec.Disks, func(x Disk) bool { return x.ID == disk.ID || x.Device == disk.Device }) {
			return ErrExists
		}
		disk.Source = disk.Source.clone()
		return d.change(func(s *Spec) { s.Disks = append(s.Disks, disk) })
	})
}

// change edits the spec, unless the result would be no good.
func (d *fakeDomain) change(edit func(*Spec)) error {
	s := d.spec.clone()
	edit(&s)
	if err := s.checkDevices(); err != nil {
		return err
	}
	d.spec = s
	return nil
}

// DetachDisk implements Devices.
func (f *Fake) DetachDisk(ctx context.Context, uuid, id string) error {
	return f.try(ctx, "DetachDisk", uuid, func(d *fakeDomain) error {
		disk, err := d.disk(id)
		switch {
		case err != nil:
			return err
		case disk.Bus != SCSI:
			return ErrUnsupported
		case f.holds[uuid]:
			return ErrBusy
		}
		d.spec.Disks = slices.DeleteFunc(slices.Clone(d.spec.Disks), func(x Disk) bool { return x.ID == id })
		f.events.publish(Event{Kind: Unplugged, UUID: uuid, Device: id})
		return nil
	})
}

// ChangeMedia implements Devices.
func (f *Fake) ChangeMedia(ctx context.Context, uuid, id string, s *Source) error {
	return f.try(ctx, "ChangeMedia", uuid, func(d *fakeDomain) error {
		disk, err := d.disk(id)
		if err != nil {
			return err
		}
		if !disk.CD {
			return ErrUnsupported
		}
		if s != nil {
			if err := s.check(); err != nil {
				return err
			}
		}
		disk.Source = s.clone()
		return nil
	})
}

// ResizeDisk implements Devices.
func (f *Fake) ResizeDisk(ctx context.Context, uuid, id string, bytes int64) error {
	return f.try(ctx, "ResizeDisk", uuid, func(d *fakeDomain) error {
		if _, err := d.disk(id); err != nil {
			return err
		}
		if bytes <= 0 {
			return fmt.Errorf("disk %s: size %d", id, bytes)
		}
		if d.sizes == nil {
			d.sizes = map[string]int64{}
		}
		d.sizes[id] = bytes
		return nil
	})
}

// AttachNIC implements Devices.
func (f *Fake) AttachNIC(ctx context.Context, uuid string, n NIC) error {
	return f.try(ctx, "AttachNIC", uuid, func(d *fakeDomain) error {
		if _, err := d.nic(n.ID); err == nil {
			return ErrExists
		}
		return d.change(func(s *Spec) { s.NICs = append(s.NICs, n) })
	})
}

// DetachNIC implements Devices.
func (f *Fake) DetachNIC(ctx context.Context, uuid, id string) error {
	return f.try(ctx, "DetachNIC", uuid, func(d *fakeDomain) error {
		if _, err := d.nic(id); err != nil {
			return err
		}
		if f.holds[uuid] {
			return ErrBusy
		}
		d.spec.NICs = slices.DeleteFunc(slices.Clone(d.spec.NICs), func(x NIC) bool { return x.ID == id })
		f.events.publish(Event{Kind: Unplugged, UUID: uuid, Device: id})
		return nil
	})
}

// UpdateNIC implements Devices.
func (f *Fake) UpdateNIC(ctx context.Context, uuid string, n NIC) error {
	return f.try(ctx, "UpdateNIC", uuid, func(d *fakeDomain) error {
		was, err := d.nic(n.ID)
		if err != nil {
			return err
		}
		if err := n.check(); err != nil {
			return err
		}
		if !was.rewired(n) {
			return ErrUnsupported
		}
		*was = n
		return nil
	})
}

// SetVCPUs implements Devices.
func (f *Fake) SetVCPUs(ctx context.Context, uuid string, n int) error {
	return f.try(ctx, "SetVCPUs", uuid, func(d *fakeDomain) error {
		if n < 1 || n > d.spec.VCPUsMax {
			return fmt.Errorf("%d of %d vcpus is out of range", n, d.spec.VCPUsMax)
		}
		switch {
		case n < d.spec.VCPUs && n < d.fixed:
			return ErrUnsupported
		case n < d.spec.VCPUs && f.holds[uuid]:
			return ErrBusy
		}
		d.spec.VCPUs = n
		return nil
	})
}

// SetMemoryTarget implements Devices.
func (f *Fake) SetMemoryTarget(ctx context.Context, uuid string, bytes int64) error {
	return f.try(ctx, "SetMemoryTarget", uuid, func(d *fakeDomain) error {
		if bytes < 1 || bytes > d.spec.MemoryBytes {
			return fmt.Errorf("memory target of %d bytes is out of range", bytes)
		}
		d.spec.MemoryTargetBytes = bytes
		return nil
	})
}

// MemoryStats implements Devices: the guest obeys at once, and uses half.
func (f *Fake) MemoryStats(ctx context.Context, uuid string) (m MemoryStats, err error) {
	err = f.on(ctx, "MemoryStats", uuid, "", func(d *fakeDomain) {
		m = d.memoryStats()
	})
	return m, err
}

func (d *fakeDomain) memoryStats() (m MemoryStats) {
	if d.memory != nil {
		return *d.memory
	}
	m.Actual = d.spec.MemoryBytes
	if d.spec.MemoryTargetBytes > 0 {
		m.Actual = d.spec.MemoryTargetBytes
	}
	m.Total, m.Free, m.Usable, m.RSS = m.Actual, m.Actual/2, m.Actual/2, m.Actual
	return m
}
