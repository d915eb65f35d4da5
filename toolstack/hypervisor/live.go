package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"libvirt.org/go/libvirtxml"
)

// Hardware implements Devices. What libvirt says of disks is held against what QEMU
// does: see truth.
func (l *Libvirt) Hardware(ctx context.Context, uuid string) (Hardware, error) {
	var err error
	for range looks {
		var d libvirtxml.Domain
		if d, err = l.describe(ctx, uuid); err == nil {
			err = l.truth(ctx, uuid, d)
		}
		if err == nil {
			return hardwareFrom(d), nil
		}
		if !errors.Is(err, errChanging) {
			break
		}
	}
	return Hardware{}, fmt.Errorf("hardware of %s: %w", uuid, err)
}

// looks is how often a domain is looked at that changes meanwhile.
const looks = 5

// describe reads the domain as it is now.
func (l *Libvirt) describe(ctx context.Context, uuid string) (d libvirtxml.Domain, err error) {
	var x string
	err = l.job(ctx, "describe", uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) (err error) {
		x, err = c.DomainGetXMLDesc(d, 0)
		return err
	})
	if err != nil {
		return d, err
	}
	if err := d.Unmarshal(x); err != nil {
		return d, fmt.Errorf("domain %s: %w", uuid, err)
	}
	return d, nil
}

// AttachDisk implements Devices.
func (l *Libvirt) AttachDisk(ctx context.Context, uuid string, d Disk) error {
	if err := d.check(); err != nil {
		return err
	}
	if d.Bus != SCSI {
		return fmt.Errorf("attach disk %s: on %s: %w", d.ID, d.Bus, ErrUnsupported)
	}
	h, err := l.Hardware(ctx, uuid)
	if err != nil {
		return err
	}
	for _, other := range h.Disks {
		if other.ID == d.ID || other.Device == d.Device {
			return fmt.Errorf("attach disk %s as %s: %w", d.ID, d.Device, ErrExists)
		}
	}
	x := diskXML(d, 0)
	return l.attach(ctx, "attach disk", uuid, &x)
}

// AttachNIC implements Devices.
func (l *Libvirt) AttachNIC(ctx context.Context, uuid string, n NIC) error {
	if err := n.check(); err != nil {
		return err
	}
	h, err := l.Hardware(ctx, uuid)
	if err != nil {
		return err
	}
	if _, there := h.NIC(n.ID); there {
		return fmt.Errorf("attach nic %s: %w", n.ID, ErrExists)
	}
	x := nicXML(n, 0)
	return l.attach(ctx, "attach nic", uuid, &x)
}

// element is a device as XML; only through this method does it become complete.
type element interface{ Marshal() (string, error) }

func (l *Libvirt) attach(ctx context.Context, what, uuid string, device element) error {
	x, err := device.Marshal()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return l.job(ctx, what, uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		return c.DomainAttachDeviceFlags(d, x, uint32(golibvirt.DomainDeviceModifyLive))
	})
}

// DetachDisk implements Devices.
func (l *Libvirt) DetachDisk(ctx context.Context, uuid, id string) error {
	disk, err := l.disk(ctx, uuid, id)
	if err != nil {
		return err
	}
	if disk.Bus != SCSI {
		return fmt.Errorf("detach disk %s: from %s: %w", id, disk.Bus, ErrUnsupported)
	}
	return l.detach(ctx, uuid, id, func(h Hardware) bool { _, there := h.Disk(id); return there })
}

// DetachNIC implements Devices.
func (l *Libvirt) DetachNIC(ctx context.Context, uuid, id string) error {
	there := func(h Hardware) bool { _, there := h.NIC(id); return there }
	h, err := l.Hardware(ctx, uuid)
	if err != nil {
		return err
	}
	if !there(h) {
		return fmt.Errorf("nic %s: %w", id, ErrNotFound)
	}
	return l.detach(ctx, uuid, id, there)
}

func (l *Libvirt) disk(ctx context.Context, uuid, id string) (Disk, error) {
	h, err := l.Hardware(ctx, uuid)
	if err != nil {
		return Disk{}, err
	}
	d, there := h.Disk(id)
	if !there {
		return Disk{}, fmt.Errorf("disk %s of %s: %w", id, uuid, ErrNotFound)
	}
	return d, nil
}

// detach asks for a device and waits for the event that it is gone. Events may be
// lost, so whenever that is said, and at the end, the domain itself is looked at; if it
// is not known whether libvirt heard the question, it is asked once more then.
func (l *Libvirt) detach(ctx context.Context, uuid, id string, there func(Hardware) bool) error {
	events, unsubscribe := l.Subscribe()
	defer unsubscribe()
	unheard := l.askFor(ctx, uuid, id)
	if unheard != nil && !errors.Is(unheard, ErrUnknownOutcome) {
		return unheard
	}
	gone := func() (bool, error) {
		h, err := l.Hardware(ctx, uuid)
		return err == nil && !there(h), err
	}
	limit := time.NewTimer(l.cfg.Limits.Unplug)
	defer limit.Stop()
	for {
		select {
		case e := <-events:
			switch {
			case e.Kind == Unplugged && e.UUID == uuid && e.Device == id:
				return nil
			case e.Kind == Resync || e.Kind == Stopped && e.UUID == uuid:
				if done, err := gone(); done || err != nil {
					return err
				}
				if unheard != nil {
					unheard = l.askFor(ctx, uuid, id)
				}
			}
		case <-limit.C:
			if done, err := gone(); done || err != nil {
				return err
			}
			return fmt.Errorf("detach %s from %s: %w: the guest has not let go for %s", id, uuid, ErrBusy, l.cfg.Limits.Unplug)
		case <-ctx.Done():
			return fmt.Errorf("detach %s from %s: %w: %w", id, uuid, ErrUnknownOutcome, context.Cause(ctx))
		}
	}
}

// askFor asks a domain for a device. It names the whole device: asked for an alias,
// libvirt (11.3) notes that QEMU has the device no more before it strikes it out of
// its own description, and when it is killed in between, its successor goes on
// describing what is not there.
func (l *Libvirt) askFor(ctx context.Context, uuid, id string) error {
	desc, err := l.describe(ctx, uuid)
	if err != nil {
		return err
	}
	device := find(desc, id)
	if device == nil {
		return nil
	}
	x, err := device.Marshal()
	if err != nil {
		return fmt.Errorf("detach %s: %w", id, err)
	}
	return l.job(ctx, "detach "+id, uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		return c.DomainDetachDeviceFlags(d, x, uint32(golibvirt.DomainAffectLive))
	})
}

// find finds a disk or NIC in a description; nil when there is none of that ID.
func find(d libvirtxml.Domain, id string) element {
	if d.Devices == nil {
		return nil
	}
	for _, x := range d.Devices.Disks {
		if idOf(x.Alias) == id {
			return &x
		}
	}
	for _, x := range d.Devices.Interfaces {
		if idOf(x.Alias) == id {
			return &x
		}
	}
	return nil
}

// ChangeMedia implements Devices. It does not ask a guest that has locked the tray.
func (l *Libvirt) ChangeMedia(ctx context.Context, uuid, id string, s *Source) error {
	disk, err := l.disk(ctx, uuid, id)
	if err != nil {
		return err
	}
	if !disk.CD {
		return fmt.Errorf("disk %s is no CD drive: %w", id, ErrUnsupported)
	}
	disk.Source = s
	if err := disk.check(); err != nil {
		return err
	}
	x := diskXML(disk, 0)
	return l.update(ctx, "change media", uuid, &x, golibvirt.DomainDeviceModifyLive|golibvirt.DomainDeviceModifyForce)
}

// UpdateNIC implements Devices. It hands libvirt's own description of the NIC back,
// because any other difference would be refused.
func (l *Libvirt) UpdateNIC(ctx context.Context, uuid string, n NIC) error {
	if err := n.check(); err != nil {
		return err
	}
	d, err := l.describe(ctx, uuid)
	if err != nil {
		return err
	}
	for _, x := range d.Devices.Interfaces {
		if idOf(x.Alias) != n.ID {
			continue
		}
		if !nicFrom(n.ID, x).rewired(n) {
			return fmt.Errorf("nic %s: only bridge and link change: %w", n.ID, ErrUnsupported)
		}
		x.Source, x.Link = nicXML(n, 0).Source, &libvirtxml.DomainInterfaceLink{State: "up"}
		if n.LinkDown {
			x.Link.State = "down"
		}
		return l.update(ctx, "update nic", uuid, &x, golibvirt.DomainDeviceModifyLive)
	}
	return fmt.Errorf("nic %s of %s: %w", n.ID, uuid, ErrNotFound)
}

func (l *Libvirt) update(ctx context.Context, what, uuid string, device element, flags golibvirt.DomainDeviceModifyFlags) error {
	x, err := device.Marshal()
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return l.job(ctx, what, uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		return c.DomainUpdateDeviceFlags(d, x, flags)
	})
}

// ResizeDisk implements Devices.
func (l *Libvirt) ResizeDisk(ctx context.Context, uuid, id string, bytes int64) error {
	if bytes <= 0 {
		return fmt.Errorf("disk %s: size %d", id, bytes)
	}
	disk, err := l.disk(ctx, uuid, id)
	if err != nil {
		return err
	}
	return l.job(ctx, "resize disk "+id, uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		return c.DomainBlockResize(d, disk.Device, uint64(bytes), golibvirt.DomainBlockResizeBytes)
	})
}

// SetVCPUs implements Devices.
func (l *Libvirt) SetVCPUs(ctx context.Context, uuid string, n int) error {
	if n < 1 || n > maxVCPUs {
		return fmt.Errorf("%d vcpus is out of range", n)
	}
	return declined(l.job(ctx, "set vcpus", uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		return c.DomainSetVcpusFlags(d, uint32(n), uint32(golibvirt.DomainVCPULive))
	}))
}

// declined gives meaning to how libvirt (11.3) says that a vCPU is not given up: none to
// be had, or the guest said no. That it said nothing for five seconds counts as busy
// anyway.
func declined(err error) error {
	var e golibvirt.Error
	if !errors.As(err, &e) {
		return err
	}
	switch golibvirt.ErrorNumber(e.Code) {
	case golibvirt.ErrConfigUnsupported, golibvirt.ErrOperationUnsupported:
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	case golibvirt.ErrOperationFailed:
		return fmt.Errorf("%w: %w", ErrBusy, err)
	}
	return err
}

// SetMemoryTarget implements Devices.
func (l *Libvirt) SetMemoryTarget(ctx context.Context, uuid string, bytes int64) error {
	if bytes < 1 {
		return fmt.Errorf("memory target of %d bytes is out of range", bytes)
	}
	return l.job(ctx, "set memory target", uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		return c.DomainSetMemoryFlags(d, uint64(kib(bytes)), uint32(golibvirt.DomainMemLive))
	})
}

// MemoryStats implements Devices.
func (l *Libvirt) MemoryStats(ctx context.Context, uuid string) (MemoryStats, error) {
	var stats []golibvirt.DomainMemoryStat
	err := l.job(ctx, "memory stats", uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) (err error) {
		stats, err = c.DomainMemoryStats(d, uint32(golibvirt.DomainMemoryStatNr), 0)
		return err
	})
	return memoryFrom(stats), err
}

func memoryFrom(stats []golibvirt.DomainMemoryStat) (m MemoryStats) {
	for _, s := range stats {
		bytes := int64(s.Val) << 10
		switch golibvirt.DomainMemoryStatTags(s.Tag) {
		case golibvirt.DomainMemoryStatActualBalloon:
			m.Actual = bytes
		case golibvirt.DomainMemoryStatAvailable:
			m.Total = bytes
		case golibvirt.DomainMemoryStatUnused:
			m.Free = bytes
		case golibvirt.DomainMemoryStatUsable:
			m.Usable = bytes
		case golibvirt.DomainMemoryStatRss:
			m.RSS = bytes
		}
	}
	return m
}
