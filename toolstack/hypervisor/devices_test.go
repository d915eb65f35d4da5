package hypervisor

import (
	"bytes"
	"errors"
	"image/color"
	"os"
	"reflect"
	"strings"
	"testing"

	"cairn/golden"

	"libvirt.org/go/libvirtxml"
)

const (
	diskA = "11111111-2222-4333-8444-555555555555"
	diskB = "21111111-2222-4333-8444-555555555555"
	cdC   = "31111111-2222-4333-8444-555555555555"
	nicA  = "41111111-2222-4333-8444-555555555555"
	nicB  = "51111111-2222-4333-8444-555555555555"
)

// firmwareSpec is a VM with a bit of everything.
func firmwareSpec() Spec {
	s := testSpec()
	s.Boot, s.Firmware, s.Graphics, s.BootOrder = DirectBoot{}, BIOS, true, []string{BootCD, BootDisk, BootNetwork}
	s.Disks = []Disk{
		{ID: diskA, Serial: diskA, Device: "sda", Bus: SCSI, Source: &Source{
			Path: "/run/sr/a/leaf.qcow2", Format: Qcow2, Backing: &Source{
				Path: "/run/sr/a/middle.qcow2", Format: Qcow2, Backing: &Source{Path: "/dev/vg/base", Format: Raw, Block: true},
			},
		}},
		{ID: diskB, Serial: diskB, Device: "sdb", Bus: SATA, Source: &Source{Path: "/dev/vg/b", Format: Qcow2, Block: true}},
		{ID: cdC, Device: "sdd", Bus: SATA, CD: true},
	}
	s.NICs = []NIC{
		{ID: nicA, MAC: "02:00:00:00:00:0a", Bridge: "xenbr0", Tap: TapName(nicA), MTU: 1500},
		{ID: nicB, MAC: "02:00:00:00:00:0B", Bridge: "xapi1", Tap: TapName(nicB), Model: E1000E, LinkDown: true},
	}
	return s
}

func TestDomainXMLDevices(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Spec)
	}{
		{"bios", func(*Spec) {}},
		{"uefi", func(s *Spec) { s.Firmware = UEFI }},
		{"secure-boot-tpm", func(s *Spec) { s.Firmware, s.SecureBoot, s.TPM, s.BootOrder = UEFI, true, true, []string{BootDisk} }},
		{"headless", func(s *Spec) { s.Graphics, s.BootOrder = false, nil }},
		{"balloon-sockets", func(s *Spec) {
			s.VCPUsMax, s.CoresPerSocket, s.MemoryTargetBytes = 8, 4, 128<<20
			s.Disks, s.NICs = nil, nil
		}},
		{"shared-read-only", func(s *Spec) {
			s.Disks = s.Disks[:1]
			s.Disks[0].Shareable, s.Disks[0].ReadOnly, s.NICs = true, true, nil
			s.Disks[0].Source = &Source{Path: "/run/sr/a/shared.raw", Format: Raw}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := firmwareSpec()
			tt.edit(&s)
			got, err := DefaultConfig().domainXML(s)
			if err != nil {
				t.Fatal(err)
			}
			golden.Equal(t, "testdata/"+tt.name+".xml", got)
		})
	}
}

// TestHardwareFromXML reads back what is written: what Hardware says of a domain is
// what it was started with.
func TestHardwareFromXML(t *testing.T) {
	s := firmwareSpec()
	x, err := DefaultConfig().domainXML(s)
	if err != nil {
		t.Fatal(err)
	}
	var d libvirtxml.Domain
	if err := d.Unmarshal(x); err != nil {
		t.Fatal(err)
	}
	h := hardwareFrom(d)
	s.Disks[1].Serial = "21111111222243338444" // all that SATA has room for
	s.NICs[0].Model, s.NICs[1].MAC = Virtio, "02:00:00:00:00:0b"
	if !reflect.DeepEqual(h, Hardware{Disks: s.Disks, NICs: s.NICs, VCPUs: 1}) {
		t.Errorf("read back %+v", h)
	}
	if h := hardwareFrom(libvirtxml.Domain{}); h.Disks != nil || h.NICs != nil {
		t.Errorf("of nothing: %+v", h)
	}
}

// TestResourcedXML: a saved machine comes back with its hardware, on other images.
func TestResourcedXML(t *testing.T) {
	s := firmwareSpec()
	saved, err := DefaultConfig().domainXML(s)
	if err != nil {
		t.Fatal(err)
	}
	moved := s.clone()
	moved.Title, moved.MemoryBytes = "other", 1<<30
	moved.Disks[0].Source = &Source{Path: "/run/sr/b/copy.raw", Format: Raw}
	moved.NICs[0].Bridge = "xapi7"
	x, err := resourcedXML(saved, moved)
	if err != nil {
		t.Fatal(err)
	}
	var d libvirtxml.Domain
	if err := d.Unmarshal(x); err != nil {
		t.Fatal(err)
	}
	h := hardwareFrom(d)
	if !h.Disks[0].Source.Equal(moved.Disks[0].Source) || h.NICs[0].Bridge != "xapi7" || d.Title != "other" {
		t.Errorf("moved to %+v, %q", h, d.Title)
	}
	if d.Memory.Value != 256<<10 || h.NICs[1].Bridge != "xapi1" {
		t.Errorf("more has changed: %d KiB, %+v", d.Memory.Value, h.NICs[1])
	}
	moved.UUID = diskA
	if _, err := resourcedXML(saved, moved); err == nil {
		t.Error("took another VM's file")
	}
}

func TestCheckDevices(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Spec)
		want string
	}{
		{"good", func(*Spec) {}, ""},
		{"firmware", func(s *Spec) { s.Firmware = "coreboot" }, "firmware"},
		{"kernel and firmware", func(s *Spec) { s.Boot.Kernel = "/vmlinuz" }, "beside bios"},
		{"secure bios", func(s *Spec) { s.SecureBoot = true }, "secure boot"},
		{"order", func(s *Spec) { s.BootOrder = []string{"floppy"} }, "boot order"},
		{"order twice", func(s *Spec) { s.BootOrder = []string{BootCD, BootCD} }, "boot order"},
		{"target", func(s *Spec) { s.MemoryTargetBytes = s.MemoryBytes + 1 }, "memory target"},
		{"cores", func(s *Spec) { s.VCPUsMax, s.CoresPerSocket = 6, 4 }, "sockets of 4"},
		{"disk id", func(s *Spec) { s.Disks[0].ID = "x'/><evil" }, "not a uuid"},
		{"upper case id", func(s *Spec) { s.Disks[0].ID = "AAAAAAAA-2222-4333-8444-555555555555" }, "not a uuid"},
		{"two of an id", func(s *Spec) { s.Disks[1].ID = diskA }, "two devices"},
		{"two in a place", func(s *Spec) { s.Disks[1].Device = "sda" }, "two devices"},
		{"place", func(s *Spec) { s.Disks[0].Device = "vda" }, "not a place"},
		{"bus", func(s *Spec) { s.Disks[0].Bus = "ide" }, "bus"},
		{"serial", func(s *Spec) { s.Disks[0].Serial = "a,b" }, "serial"},
		{"cd on scsi", func(s *Spec) { s.Disks[2].Bus = SCSI }, "CD drive on scsi"},
		{"read-only sata", func(s *Spec) { s.Disks[1].ReadOnly = true }, "read-only"},
		{"empty disk", func(s *Spec) { s.Disks[0].Source = nil }, "only a CD drive"},
		{"relative image", func(s *Spec) { s.Disks[0].Source.Path = "a.qcow2" }, "absolute"},
		{"odd image", func(s *Spec) { s.Disks[0].Source.Path = `/a"b` }, "plain path"},
		{"climbing image", func(s *Spec) { s.Disks[0].Source.Path = "/run/sr/../../etc/shadow" }, "plain path"},
		{"odd backing", func(s *Spec) { s.Disks[0].Source.Backing.Path = "/a\n" }, "plain path"},
		{"format", func(s *Spec) { s.Disks[0].Source.Format = "vmdk" }, "format"},
		{"no format", func(s *Spec) { s.Disks[0].Source.Backing.Format = "" }, "format"},
		{"raw with backing", func(s *Spec) { s.Disks[0].Source.Format = Raw }, "no backing"},
		{"shared image with tables", func(s *Spec) { s.Disks[0].Shareable = true }, "cannot be shared"},
		{"circle", func(s *Spec) { s.Disks[0].Source.Backing.Backing = s.Disks[0].Source }, "beneath itself"},
		{"nic id", func(s *Spec) { s.NICs[0].ID = "" }, "not a uuid"},
		{"mac", func(s *Spec) { s.NICs[0].MAC = "02:00:00:00:00" }, "MAC"},
		{"multicast mac", func(s *Spec) { s.NICs[0].MAC = "01:00:00:00:00:01" }, "MAC"},
		{"infiniband mac", func(s *Spec) { s.NICs[0].MAC = "02-00-00-00-00-0a-0b-0c" }, "MAC"},
		{"two of a mac", func(s *Spec) { s.NICs[1].MAC = "02:00:00:00:00:0A" }, "two devices"},
		{"two of a tap", func(s *Spec) { s.NICs[1].Tap = s.NICs[0].Tap }, "two devices"},
		{"long tap", func(s *Spec) { s.NICs[0].Tap = "cv11111111222233" }, "tap"},
		{"bridge", func(s *Spec) { s.NICs[0].Bridge = "../eth0" }, "bridge"},
		{"mtu", func(s *Spec) { s.NICs[0].MTU = 20 }, "mtu"},
		{"model", func(s *Spec) { s.NICs[0].Model = "vmxnet3" }, "model"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := firmwareSpec()
			tt.edit(&s)
			err := s.Check()
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
			if errors.Is(err, ErrNotFound) {
				t.Errorf("%v says that there is no domain", err)
			}
		})
	}
}

func TestCheckOverlays(t *testing.T) {
	h := Hardware{Disks: firmwareSpec().Disks}
	over := func(i int) Overlay {
		return Overlay{ID: h.Disks[i].ID, Source: Source{Path: "/o.qcow2", Format: Qcow2, Backing: h.Disks[i].Source}}
	}
	wrong := over(0)
	wrong.Source.Backing = h.Disks[1].Source
	flat := over(0)
	flat.Source.Backing = nil
	tests := []struct {
		name     string
		overlays []Overlay
		want     string
	}{
		{"good", []Overlay{over(0), over(1)}, ""},
		{"absent", []Overlay{{ID: nicA}}, "does not have it"},
		{"twice", []Overlay{over(0), over(0)}, "two overlays"},
		{"cd", []Overlay{over(2)}, "not written to"},
		{"on another image", []Overlay{wrong}, "not on what the disk has"},
		{"on nothing", []Overlay{flat}, "not on what the disk has"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := checkOverlays(h, tt.overlays)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestSnapshotXML(t *testing.T) {
	h := Hardware{Disks: firmwareSpec().Disks}
	x, err := snapshotXML(h, []Overlay{
		{ID: diskA, Source: Source{Path: "/run/sr/a/new.qcow2", Format: Qcow2, Backing: h.Disks[0].Source}},
		{ID: diskB, Source: Source{Path: "/dev/vg/new", Format: Qcow2, Block: true, Backing: h.Disks[1].Source}},
	})
	if err != nil {
		t.Fatal(err)
	}
	golden.Equal(t, "testdata/snapshot.xml", x+"\n")
}

func TestPlace(t *testing.T) {
	for device, want := range map[string]uint{"sda": 0, "sdp": 15, "sdz": 25, "sdaa": 26, "sdba": 52, "sdzz": 701} {
		if got := place(device); got != want {
			t.Errorf("%s is %d, want %d", device, got, want)
		}
	}
}

func TestTapName(t *testing.T) {
	if got := TapName(nicA); got != "cv411111112222" || !goodInterface.MatchString(got) {
		t.Errorf("got %q", got)
	}
	if got := TapName("ab"); got != "cvab" {
		t.Errorf("got %q", got)
	}
}

func TestReadPPM(t *testing.T) {
	good := "P6\n2 1\n255\n\x01\x02\x03\xff\xfe\xfd"
	screen, err := readPPM(strings.NewReader(good))
	if err != nil {
		t.Fatal(err)
	}
	if got := screen.At(1, 0); got != (color.RGBA{0xff, 0xfe, 0xfd, 0xff}) || screen.Bounds().Dx() != 2 {
		t.Errorf("got %v of %v", got, screen.Bounds())
	}
	for name, bad := range map[string]string{
		"empty": "", "kind": "P3\n1 1\n255\n000", "depth": "P6\n1 1\n65535\n000000", "short": good[:len(good)-1],
		"negative": "P6\n-1 -1\n255\n000", "huge": "P6\n100000 100000\n255\n", "overflow": "P6\n4611686018427387904 4\n255\n",
	} {
		if _, err := readPPM(strings.NewReader(bad)); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzReadPPM(f *testing.F) {
	f.Add([]byte("P6\n2 1\n255\n\x01\x02\x03\xff\xfe\xfd"))
	f.Add([]byte("P6\n1 1\n65535\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if screen, err := readPPM(bytes.NewReader(b)); err == nil && 3*screen.Bounds().Dx()*screen.Bounds().Dy() > len(b) {
			t.Errorf("%v out of %d bytes", screen.Bounds(), len(b))
		}
	})
}

func TestRemoveScreen(t *testing.T) {
	c := Config{GraphicsDir: t.TempDir()}
	for _, uuid := range []string{diskA, diskB} {
		if err := os.WriteFile(c.graphicsPath(uuid), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 { // also where there is none
		if err := c.removeScreen(diskA); err != nil {
			t.Error(err)
		}
	}
	left, err := os.ReadDir(c.GraphicsDir)
	if err != nil || len(left) != 1 || left[0].Name() != diskB+".vnc" {
		t.Errorf("left: %v, %v", left, err)
	}
	c.GraphicsDir += "/" + diskB + ".vnc"
	if err := c.removeScreen(diskA); err == nil || !strings.Contains(err.Error(), diskA) {
		t.Errorf("a directory that is none: %v", err)
	}
}
