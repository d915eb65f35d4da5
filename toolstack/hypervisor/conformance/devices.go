package conformance

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"image/png"
	"io"
	"net"
	"strings"
	"time"

	"github.com/google/uuid"

	"cairn/toolstack/hypervisor"
)

const (
	mib      = 1 << 20
	diskSize = 16 * mib
)

// disk is a new disk for a place, with a new image.
func (s *script) disk(device string) hypervisor.Disk {
	id := uuid.NewString()
	source := s.Volumes.Create(s.T, id+".qcow2", diskSize)
	return hypervisor.Disk{ID: id, Serial: id, Device: device, Bus: hypervisor.SCSI, Source: &source}
}

func (s *script) drive(device string) hypervisor.Disk {
	return hypervisor.Disk{ID: uuid.NewString(), Device: device, Bus: hypervisor.SATA, CD: true}
}

func (s *script) nic() hypervisor.NIC {
	id := uuid.NewString()
	u := uuid.MustParse(id)
	return hypervisor.NIC{
		ID: id, MAC: fmt.Sprintf("02:00:00:%02x:%02x:%02x", u[0], u[1], u[2]), Bridge: s.Bridge,
		Tap: hypervisor.TapName(id), MTU: 1400,
	}
}

// ask gives the guest a command and returns the answer, up to its end. Where no
// guest understands, there is no answer.
func (s *script) ask(tty net.Conn, line string) string {
	s.Helper()
	if !s.Agent {
		return ""
	}
	name, _, _ := strings.Cut(line, " ")
	s.enter(tty, line)
	answer := s.readUntil(tty, "\n"+name+" ok ", "\n"+name+" failed ")
	if strings.Contains(answer, "\n"+name+" failed ") {
		s.Fatalf("%s: %s", line, answer)
	}
	return answer
}

// says asks until the answer contains what is wanted: what is plugged needs the
// guest's time to be seen.
func (s *script) says(tty net.Conn, line, want string) {
	s.Helper()
	for end := time.Now().Add(s.Limit); s.Agent; {
		answer := s.ask(tty, line)
		if strings.Contains(answer, want) {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("%s: no %q in %q", line, want, answer)
		}
	}
}

// pattern is what the guest answers when a disk of that size begins with a pattern
// and has nothing more.
func (s *script) pattern(seed int64, filled, size int64) string {
	if !s.Agent {
		return ""
	}
	h := sha256.New()
	_, _ = io.CopyN(h, s.Pattern(seed), filled)
	_, _ = io.CopyN(h, zeros{}, size-filled)
	return fmt.Sprintf("bytes=%d sha256=%x", size, h.Sum(nil))
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

func (s *script) hardware() hypervisor.Hardware {
	s.Helper()
	h, err := s.Hypervisor.Hardware(s.ctx, s.id)
	s.must(err)
	return h
}

// source fails unless a disk is on the given images.
func (s *script) source(id string, want *hypervisor.Source) {
	s.Helper()
	d, ok := s.hardware().Disk(id)
	if !ok || !d.Source.Equal(want) {
		s.Errorf("disk %s is on %+v, want %+v", id, d.Source, want)
	}
}

// disks: those of the start, one that comes and goes, one that grows.
func (s *script) disks() {
	first, second := s.disk("sda"), s.disk("sdb")
	s.Spec.Disks = []hypervisor.Disk{first}
	tty := s.boot()
	s.source(first.ID, first.Source)
	s.ask(tty, "fill "+first.Serial+" 1 4")
	s.says(tty, "sum "+first.Serial, s.pattern(1, 4*mib, diskSize))
	s.must(s.Hypervisor.AttachDisk(s.ctx, s.id, second))
	s.is(s.Hypervisor.AttachDisk(s.ctx, s.id, second), hypervisor.ErrExists)
	s.source(second.ID, second.Source)
	s.says(tty, "disks", fmt.Sprintf("serial=%s bytes=%d", second.Serial, diskSize))
	s.ask(tty, "fill "+second.Serial+" 2 16")
	s.must(s.Hypervisor.ResizeDisk(s.ctx, s.id, second.ID, 2*diskSize))
	s.says(tty, "disks", fmt.Sprintf("serial=%s bytes=%d", second.Serial, 2*diskSize))
	s.says(tty, "sum "+second.Serial, s.pattern(2, 16*mib, 2*diskSize))
	s.must(s.Hypervisor.DetachDisk(s.ctx, s.id, second.ID))
	s.wait(hypervisor.Unplugged, "")
	s.is(s.Hypervisor.DetachDisk(s.ctx, s.id, second.ID), hypervisor.ErrNotFound)
	s.is(s.Hypervisor.Snapshot(s.ctx, s.id, []hypervisor.Overlay{{ID: second.ID}}), hypervisor.ErrBadState)
	s.is(s.Hypervisor.ResizeDisk(s.ctx, s.id, second.ID, diskSize), hypervisor.ErrNotFound)
	s.must(s.Hypervisor.AttachDisk(s.ctx, s.id, second)) // its place is free again
	s.says(tty, "sum "+second.Serial, s.pattern(2, 16*mib, 2*diskSize))
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
	s.check(*first.Source, *second.Source)
}

// shared: one raw image is a disk of two domains, one of which gets it while it is there.
func (s *script) shared() {
	source := s.Volumes.Raw(s.T, uuid.NewString()+".raw", diskSize)
	share := func(device string) hypervisor.Disk {
		id := uuid.NewString()
		return hypervisor.Disk{ID: id, Serial: id, Device: device, Bus: hypervisor.SCSI, Source: &source, Shareable: true}
	}
	mine, theirs, refused := share("sda"), share("sdb"), s.disk("sdc")
	refused.Shareable = true
	s.Spec.Disks = []hypervisor.Disk{mine}
	tty := s.boot()
	other := s.Spec
	other.UUID, other.Title, other.Disks = uuid.NewString(), "the other", nil
	s.must(s.Hypervisor.Start(s.ctx, other, true))
	s.Cleanup(func() { _ = s.Hypervisor.Destroy(context.Background(), other.UUID) })
	s.must(s.Hypervisor.AttachDisk(s.ctx, other.UUID, theirs))
	h, err := s.Hypervisor.Hardware(s.ctx, other.UUID)
	s.must(err)
	if d, ok := h.Disk(theirs.ID); !ok || !d.Shareable || !d.Source.Equal(&source) {
		s.Errorf("the other has %+v", h.Disks)
	}
	if err := s.Hypervisor.AttachDisk(s.ctx, other.UUID, refused); err == nil {
		s.Error("an image with tables of its own is shared")
	}
	s.ask(tty, "fill "+mine.Serial+" 1 4")
	s.must(s.Hypervisor.Destroy(s.ctx, other.UUID))
	s.says(tty, "sum "+mine.Serial, s.pattern(1, 4*mib, diskSize))
	s.ask(tty, "fill "+mine.Serial+" 2 16") // it may write still
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
	s.wait(hypervisor.Stopped, "")
}

func (s *script) check(sources ...hypervisor.Source) {
	s.Helper()
	s.wait(hypervisor.Stopped, "")
	for _, source := range sources {
		s.Volumes.Check(s.T, source)
	}
}

// media: a CD comes, is read and goes, while the drive stays.
func (s *script) media() {
	drive := s.drive("sdb")
	s.Spec.Disks = []hypervisor.Disk{drive}
	tty := s.boot()
	s.source(drive.ID, nil)
	s.is(s.Hypervisor.DetachDisk(s.ctx, s.id, drive.ID), hypervisor.ErrUnsupported)
	s.is(s.Hypervisor.AttachDisk(s.ctx, s.id, s.drive("sdc")), hypervisor.ErrUnsupported)
	for _, file := range []string{"first.txt", "second.txt"} {
		cd := s.Volumes.CD(s.T, file+".iso", file)
		s.must(s.Hypervisor.ChangeMedia(s.ctx, s.id, drive.ID, &cd))
		s.source(drive.ID, &cd)
		s.says(tty, "mount-cd", file)
		s.ask(tty, "unmount-cd")
	}
	s.must(s.Hypervisor.ChangeMedia(s.ctx, s.id, drive.ID, nil))
	s.source(drive.ID, nil)
	s.is(s.Hypervisor.ChangeMedia(s.ctx, s.id, uuid.NewString(), nil), hypervisor.ErrNotFound)
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
}

// nics: one of the start and one that comes and goes, its link and its bridge.
func (s *script) nics() {
	first, second := s.nic(), s.nic()
	first.Model = hypervisor.E1000E
	s.Spec.NICs = []hypervisor.NIC{first}
	tty := s.boot()
	s.must(s.Hypervisor.AttachNIC(s.ctx, s.id, second))
	s.is(s.Hypervisor.AttachNIC(s.ctx, s.id, second), hypervisor.ErrExists)
	if n, ok := s.hardware().NIC(second.ID); !ok || n.Tap != second.Tap || n.Bridge != second.Bridge || n.MAC != second.MAC {
		s.Errorf("plugged %+v, found %+v", second, n)
	}
	s.says(tty, "nics", "mac="+first.MAC)
	s.says(tty, "nics", "mac="+second.MAC+" mtu=1400")
	second.LinkDown = true
	s.must(s.Hypervisor.UpdateNIC(s.ctx, s.id, second))
	if n, _ := s.hardware().NIC(second.ID); !n.LinkDown {
		s.Error("the link is up")
	}
	second.MTU = 9000
	s.is(s.Hypervisor.UpdateNIC(s.ctx, s.id, second), hypervisor.ErrUnsupported)
	s.must(s.Hypervisor.DetachNIC(s.ctx, s.id, second.ID))
	s.wait(hypervisor.Unplugged, "")
	s.is(s.Hypervisor.DetachNIC(s.ctx, s.id, second.ID), hypervisor.ErrNotFound)
	if n := s.hardware().NICs; len(n) != 1 {
		s.Errorf("left are %+v", n)
	}
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
}

// held: a guest that does not run cannot let go of a NIC.
func (s *script) held() {
	n := s.nic()
	s.Spec.NICs = []hypervisor.NIC{n}
	s.boot()
	s.Hold(s.T, s.id)
	s.is(s.Hypervisor.DetachNIC(s.ctx, s.id, n.ID), hypervisor.ErrBusy)
	if _, ok := s.hardware().NIC(n.ID); !ok {
		s.Error("the NIC is gone")
	}
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
}

// snapshot: two disks go on in overlays at one instant; then one top is written
// back into what is beneath, and the guest reads the same all the while.
func (s *script) snapshot() {
	a, b := s.disk("sda"), s.disk("sdb")
	s.Spec.Disks = []hypervisor.Disk{a, b, s.drive("sdc")}
	tty := s.boot()
	s.is(s.Hypervisor.Commit(s.ctx, s.id, a.ID, nil), hypervisor.ErrBadState)
	s.ask(tty, "fill "+a.Serial+" 1 8")
	overA := s.Volumes.Overlay(s.T, a.ID+"-1.qcow2", *a.Source)
	overB := s.Volumes.Overlay(s.T, b.ID+"-1.qcow2", *b.Source)
	wrong := []hypervisor.Overlay{{ID: a.ID, Source: overA}, {ID: b.ID, Source: overA}}
	s.is(s.Hypervisor.Snapshot(s.ctx, s.id, wrong), hypervisor.ErrBadState)
	s.source(a.ID, a.Source)
	s.must(s.Hypervisor.Snapshot(s.ctx, s.id, []hypervisor.Overlay{{ID: a.ID, Source: overA}, {ID: b.ID, Source: overB}}))
	s.source(a.ID, &overA)
	s.source(b.ID, &overB)
	s.says(tty, "sum "+a.Serial, s.pattern(1, 8*mib, diskSize))
	s.ask(tty, "fill "+a.Serial+" 2 12")
	part := 0.0
	s.must(s.Hypervisor.Commit(s.ctx, s.id, a.ID, func(p float64) { part = p }))
	if part != 1 {
		s.Errorf("progress ended at %f", part)
	}
	s.source(a.ID, a.Source)
	s.source(b.ID, &overB)
	s.says(tty, "sum "+a.Serial, s.pattern(2, 12*mib, diskSize))
	s.ask(tty, "fill "+b.Serial+" 3 4")
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
	s.check(*a.Source, *b.Source, overB)
}

// save: a domain goes into a file and comes back as it was, with what was plugged.
func (s *script) save() {
	a, b, n := s.disk("sda"), s.disk("sdb"), s.nic()
	s.Spec.Disks = []hypervisor.Disk{a}
	tty := s.boot()
	s.must(s.Hypervisor.AttachDisk(s.ctx, s.id, b))
	s.must(s.Hypervisor.AttachNIC(s.ctx, s.id, n))
	s.says(tty, "disks", "serial="+b.Serial)
	s.says(tty, "nics", "mac="+n.MAC)
	s.ask(tty, "fill "+b.Serial+" 5 4")
	file := s.Volumes.Path(s.id + ".save")
	s.must(s.Hypervisor.Save(s.ctx, s.id, file))
	s.whole(s.id, file, true)
	s.whole("00000000-0000-4000-8000-000000000000", file, false)
	s.wait(hypervisor.Stopped, hypervisor.BySave)
	s.nothingLeft()
	s.is(s.Hypervisor.Save(s.ctx, s.id, file), hypervisor.ErrNotFound)
	s.Spec.Disks, s.Spec.NICs = []hypervisor.Disk{a, b}, []hypervisor.NIC{n}
	s.must(s.Hypervisor.Restore(s.ctx, file, s.Spec, true))
	s.state(hypervisor.Paused)
	s.is(s.Hypervisor.Restore(s.ctx, file, s.Spec, true), hypervisor.ErrExists)
	s.source(b.ID, b.Source)
	tty = s.dial()
	s.must(s.Hypervisor.Resume(s.ctx, s.id))
	s.says(tty, "sum "+b.Serial, s.pattern(5, 4*mib, diskSize))
	s.must(s.Hypervisor.DetachDisk(s.ctx, s.id, b.ID))
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
	s.check(*a.Source, *b.Source)
}

// whole: what a file holds of a domain.
func (s *script) whole(id, file string, want bool) {
	s.Helper()
	got, err := s.Hypervisor.Whole(s.ctx, id, file)
	s.must(err)
	if got != want {
		s.Errorf("%s is whole for %s: %t", file, id, got)
	}
}

// sizes: virtual CPUs come, the balloon takes and gives memory.
func (s *script) sizes() {
	s.Spec.VCPUs, s.Spec.VCPUsMax, s.Spec.CoresPerSocket = 1, 2, 2
	s.Spec.MemoryTargetBytes = s.Spec.MemoryBytes - 32*mib
	tty := s.boot()
	s.balloon(tty, s.Spec.MemoryTargetBytes)
	s.must(s.Hypervisor.SetVCPUs(s.ctx, s.id, 2))
	if n := s.hardware().VCPUs; n != 2 {
		s.Errorf("%d vcpus", n)
	}
	if s.KVM { // Linux takes an emulated machine for a real one, which has no such CPUs
		s.says(tty, "cpus", "online=0-1 ")
	}
	s.must(s.Hypervisor.SetMemoryTarget(s.ctx, s.id, s.Spec.MemoryBytes-64*mib))
	s.balloon(tty, s.Spec.MemoryBytes-64*mib)
	s.must(s.Hypervisor.SetMemoryTarget(s.ctx, s.id, s.Spec.MemoryBytes))
	s.balloon(tty, s.Spec.MemoryBytes)
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
}

// balloon waits until the guest has what it should; asking it lets time pass.
func (s *script) balloon(tty net.Conn, want int64) {
	s.Helper()
	for end := time.Now().Add(s.Limit); ; {
		m, err := s.Hypervisor.MemoryStats(s.ctx, s.id)
		s.must(err)
		if m.Actual == want {
			return
		}
		if time.Now().After(end) {
			s.Fatalf("the guest has %+v, want %d", m, want)
		}
		s.ask(tty, "memory")
	}
}

// graphics: a picture, and a protocol's first words, of a machine that firmware
// starts and that finds nothing to boot.
func (s *script) graphics() {
	s.Spec.Firmware, s.Spec.Boot, s.Spec.Graphics = hypervisor.BIOS, hypervisor.DirectBoot{}, true
	s.Spec.BootOrder = []string{hypervisor.BootDisk, hypervisor.BootCD, hypervisor.BootNetwork}
	s.Spec.Disks = []hypervisor.Disk{s.disk("sda"), s.drive("sdd")}
	s.must(s.Hypervisor.Start(s.ctx, s.Spec, false))
	for range 3 {
		picture, err := s.Hypervisor.Screenshot(s.ctx, s.id)
		s.must(err)
		if screen, err := png.Decode(bytes.NewReader(picture)); err != nil || screen.Bounds().Empty() {
			s.Errorf("screenshot of %d bytes: %v", len(picture), err)
		}
	}
	for range 2 { // viewers share
		c, err := s.Hypervisor.DialVNC(s.ctx, s.id)
		s.must(err)
		s.Cleanup(func() { _ = c.Close() })
		s.read(c, "RFB 003.008\n")
	}
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
	s.wait(hypervisor.Stopped, "")
	_, err := s.Hypervisor.DialVNC(s.ctx, s.id)
	s.is(err, hypervisor.ErrNotFound)
	s.Spec.Graphics = false
	s.must(s.Hypervisor.Start(s.ctx, s.Spec, false))
	_, err = s.Hypervisor.Screenshot(s.ctx, s.id)
	s.is(err, hypervisor.ErrNotFound)
	_, err = s.Hypervisor.DialVNC(s.ctx, s.id)
	s.is(err, hypervisor.ErrNotFound)
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
}

// firmware: UEFI, then with secure boot and a TPM too; what they keep goes when it
// is told to.
func (s *script) firmware() {
	s.Spec.Firmware, s.Spec.Boot, s.Spec.Graphics = hypervisor.UEFI, hypervisor.DirectBoot{}, true
	for _, secure := range []bool{false, true} {
		s.Spec.SecureBoot, s.Spec.TPM = secure, secure
		s.must(s.Hypervisor.Start(s.ctx, s.Spec, false))
		s.state(hypervisor.Running)
		s.is(s.Hypervisor.Erase(s.ctx, s.id), hypervisor.ErrBadState)
		s.must(s.Hypervisor.Destroy(s.ctx, s.id))
		s.wait(hypervisor.Stopped, "")
		s.Kept(s.T, s.id, true)
		for range 2 {
			s.must(s.Hypervisor.Erase(s.ctx, s.id))
		}
		s.Kept(s.T, s.id, false)
	}
}

// noSpace: a write that finds no room pauses the guest, says so, and is repeated.
func (s *script) noSpace() {
	d := s.disk("sda")
	full := s.Full(s.T, d)
	d.Source = &full.Source
	s.Spec.Disks = []hypervisor.Disk{d}
	tty := s.boot()
	if s.Agent {
		s.enter(tty, "fill "+d.Serial+" 9 16")
	}
	full.Fail(s.id)
	s.wait(hypervisor.IOError, hypervisor.NoSpace)
	if found, _ := s.find(); !found.IOError || found.State != hypervisor.Paused {
		s.Errorf("list says %+v", found)
	}
	full.Grow()
	s.must(s.Hypervisor.Resume(s.ctx, s.id))
	if s.Agent {
		s.readUntil(tty, "\nfill ok ")
	}
	s.says(tty, "sum "+d.Serial, s.pattern(9, 16*mib, diskSize))
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
	s.check(full.Source)
}

// absentDevices: nothing is done to a domain that is not there.
func (s *script) absentDevices() {
	h, d, n := s.Hypervisor, s.disk("sda"), s.nic()
	for name, err := range map[string]error{
		"attach disk": h.AttachDisk(s.ctx, s.id, d), "detach disk": h.DetachDisk(s.ctx, s.id, d.ID),
		"attach nic": h.AttachNIC(s.ctx, s.id, n), "detach nic": h.DetachNIC(s.ctx, s.id, n.ID),
		"update nic": h.UpdateNIC(s.ctx, s.id, n), "media": h.ChangeMedia(s.ctx, s.id, d.ID, nil),
		"resize": h.ResizeDisk(s.ctx, s.id, d.ID, mib), "vcpus": h.SetVCPUs(s.ctx, s.id, 1),
		"memory": h.SetMemoryTarget(s.ctx, s.id, mib), "save": h.Save(s.ctx, s.id, s.Volumes.Path("none")),
		"snapshot": h.Snapshot(s.ctx, s.id, []hypervisor.Overlay{{ID: d.ID}}), "commit": h.Commit(s.ctx, s.id, d.ID, nil),
	} {
		if err == nil {
			s.Errorf("%s of nothing", name)
			continue
		}
		s.is(err, hypervisor.ErrNotFound)
	}
	_, err := h.Screenshot(s.ctx, s.id)
	s.is(err, hypervisor.ErrNotFound)
	_, err = h.DialVNC(s.ctx, "../libvirt-sock")
	s.is(err, hypervisor.ErrNotFound)
}
