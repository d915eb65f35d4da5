package hypervisor

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/uuid"
)

// MaxLayers is how many images a disk may be made of. libvirt is lost with a few more,
// and so are its domains: docs/decisions.md.
const MaxLayers = 22

// Limits of NICs. QEMU takes more; the pool's rules allow fewer.
const (
	minMTU = 68
	maxMTU = 65521
)

var (
	// A path is also part of QEMU's log, of JSON and of XML: nothing that any of them
	// has to escape belongs there. Volumes are named by hostd, ISO files by people.
	goodPath      = regexp.MustCompile(`^/[^\x00-\x1f\x7f<>&"'\\]*$`)
	goodDevice    = regexp.MustCompile(`^sd[a-z]{1,2}$`)
	goodSerial    = regexp.MustCompile(`^[A-Za-z0-9_.+-]{0,36}$`)
	goodInterface = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,14}$`)
)

func checkPath(what, path string) error {
	if !filepath.IsAbs(path) {
		return fmt.Errorf("spec: %s %q is not an absolute path", what, path)
	}
	if !goodPath.MatchString(path) || filepath.Clean(path) != path {
		return fmt.Errorf("spec: %s %q is not a plain path", what, path)
	}
	return nil
}

func (s Spec) checkFirmware() error {
	switch s.Firmware {
	case Direct:
		if s.SecureBoot {
			return fmt.Errorf("spec %s: secure boot without UEFI firmware", s.UUID)
		}
		return s.Boot.check()
	case BIOS, UEFI:
		if s.Boot != (DirectBoot{}) {
			return fmt.Errorf("spec %s: a kernel to boot beside %s firmware", s.UUID, s.Firmware)
		}
		if s.SecureBoot && s.Firmware != UEFI {
			return fmt.Errorf("spec %s: secure boot without UEFI firmware", s.UUID)
		}
		return s.checkOrder()
	default:
		return fmt.Errorf("spec %s: firmware %q is unknown", s.UUID, s.Firmware)
	}
}

func (s Spec) checkOrder() error {
	for i, b := range s.BootOrder {
		if b != BootDisk && b != BootCD && b != BootNetwork || slices.Contains(s.BootOrder[:i], b) {
			return fmt.Errorf("spec %s: boot order %q is not one", s.UUID, s.BootOrder)
		}
	}
	return nil
}

func (b DirectBoot) check() error {
	if err := checkPath("kernel", b.Kernel); err != nil {
		return err
	}
	if b.Initrd == "" {
		return nil
	}
	return checkPath("initrd", b.Initrd)
}

// checkDevices checks each device, and that no two claim one place.
func (s Spec) checkDevices() error {
	taken := map[string]bool{}
	claim := func(kind, what string) error {
		if taken[kind+what] {
			return fmt.Errorf("spec %s: two devices have the %s %s", s.UUID, kind, what)
		}
		taken[kind+what] = true
		return nil
	}
	var errs []error
	for _, d := range s.Disks {
		errs = append(errs, d.check(), claim("id", d.ID), claim("place", d.Device))
	}
	for _, n := range s.NICs {
		errs = append(errs, n.check(), claim("id", n.ID), claim("mac", strings.ToLower(n.MAC)), claim("tap", n.Tap))
	}
	return errors.Join(errs...)
}

func checkID(what, id string) error {
	if u, err := uuid.Parse(id); err != nil || u.String() != id {
		return fmt.Errorf("spec: %s %q is not a uuid", what, id)
	}
	return nil
}

func (d Disk) check() error {
	if err := checkID("disk", d.ID); err != nil {
		return err
	}
	switch {
	case d.Bus != SCSI && d.Bus != SATA:
		return fmt.Errorf("spec: disk %s: bus %q is unknown", d.ID, d.Bus)
	case !goodDevice.MatchString(d.Device):
		return fmt.Errorf("spec: disk %s: device %q is not a place", d.ID, d.Device)
	case !goodSerial.MatchString(d.Serial):
		return fmt.Errorf("spec: disk %s: serial %q has odd characters or is too long", d.ID, d.Serial)
	case d.CD && d.Bus != SATA:
		return fmt.Errorf("spec: disk %s: a CD drive on %s", d.ID, d.Bus)
	case d.ReadOnly && d.Bus == SATA && !d.CD: // no ATA disk has a write-protect tab
		return fmt.Errorf("spec: disk %s: a read-only disk on SATA", d.ID)
	case d.Source == nil && !d.CD:
		return fmt.Errorf("spec: disk %s: only a CD drive can be empty", d.ID)
	case d.Source == nil:
		return nil
	}
	if err := d.Source.check(); err != nil {
		return fmt.Errorf("spec: disk %s: %w", d.ID, err)
	}
	if d.Shareable && d.Source.Format != Raw {
		return fmt.Errorf("spec: disk %s: a %s image cannot be shared", d.ID, d.Source.Format)
	}
	return nil
}

func (s Source) check() error {
	seen := map[string]bool{}
	for p := &s; p != nil; p = p.Backing {
		if err := checkPath("image", p.Path); err != nil {
			return err
		}
		switch {
		case p.Format != Raw && p.Format != Qcow2:
			return fmt.Errorf("image %s: format %q is unknown", p.Path, p.Format)
		case p.Format == Raw && p.Backing != nil:
			return fmt.Errorf("image %s: a raw image has no backing", p.Path)
		case seen[p.Path]:
			return fmt.Errorf("image %s is beneath itself", p.Path)
		case len(seen) == MaxLayers:
			return fmt.Errorf("image %s: a chain of more than %d", s.Path, MaxLayers)
		}
		seen[p.Path] = true
	}
	return nil
}

func (n NIC) check() error {
	if err := checkID("nic", n.ID); err != nil {
		return err
	}
	mac, err := net.ParseMAC(n.MAC)
	switch {
	case err != nil || len(mac) != 6 || mac[0]&1 != 0 || len(n.MAC) != 17:
		return fmt.Errorf("spec: nic %s: %q is not the MAC address of one station", n.ID, n.MAC)
	case !goodInterface.MatchString(n.Bridge):
		return fmt.Errorf("spec: nic %s: bridge %q is not a name", n.ID, n.Bridge)
	case !goodInterface.MatchString(n.Tap):
		return fmt.Errorf("spec: nic %s: tap %q is not a name", n.ID, n.Tap)
	case n.MTU != 0 && (n.MTU < minMTU || n.MTU > maxMTU):
		return fmt.Errorf("spec: nic %s: mtu %d is out of range", n.ID, n.MTU)
	case n.Model != "" && n.Model != Virtio && n.Model != E1000E:
		return fmt.Errorf("spec: nic %s: model %q is unknown", n.ID, n.Model)
	}
	return nil
}

// rewired says whether o is the same NIC but for its bridge and link.
func (n NIC) rewired(o NIC) bool {
	norm := func(n NIC) NIC {
		n.Bridge, n.LinkDown, n.MAC = "", false, strings.ToLower(n.MAC)
		if n.Model == "" {
			n.Model = Virtio
		}
		return n
	}
	return norm(n) == norm(o)
}

// clone copies a source with all beneath it.
func (s *Source) clone() *Source {
	if s == nil {
		return nil
	}
	c := *s
	c.Backing = s.Backing.clone()
	return &c
}

// Equal says whether two sources are the same images.
func (s *Source) Equal(o *Source) bool {
	if s == nil || o == nil {
		return s == o
	}
	return s.Path == o.Path && s.Format == o.Format && s.Block == o.Block && s.Backing.Equal(o.Backing)
}

// checkOverlays refuses what would not be one snapshot of the disks as they are.
func checkOverlays(h Hardware, overlays []Overlay) error {
	seen := map[string]bool{}
	for _, o := range overlays {
		d, ok := h.Disk(o.ID)
		switch {
		case !ok:
			return fmt.Errorf("disk %s: the domain does not have it: %w", o.ID, ErrBadState)
		case seen[o.ID]:
			return fmt.Errorf("disk %s: two overlays", o.ID)
		case d.CD || d.ReadOnly || d.Source == nil:
			return fmt.Errorf("disk %s is not written to: %w", o.ID, ErrUnsupported)
		case o.Source.Backing == nil || !o.Source.Backing.Equal(d.Source):
			return fmt.Errorf("disk %s: the overlay %s is not on what the disk has now: %w", o.ID, o.Source.Path, ErrBadState)
		}
		if err := o.Source.check(); err != nil {
			return fmt.Errorf("disk %s: %w", o.ID, err)
		}
		seen[o.ID] = true
	}
	return nil
}
