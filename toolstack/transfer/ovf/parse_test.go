package ovf

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"cairn/golden"
	"cairn/toolstack/transfer/archive"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// text spells a descriptor for people.
func text(d *Descriptor) string {
	var b strings.Builder
	for _, f := range d.Files {
		fmt.Fprintf(&b, "file %+v\n", f)
	}
	for _, disk := range d.Disks {
		fmt.Fprintf(&b, "disk %+v\n", disk)
	}
	fmt.Fprintf(&b, "networks %q\n", d.Networks)
	for _, s := range d.Systems {
		fmt.Fprintf(&b, "system %q name %q: %q\n  guest %+v, windows %v\n", s.ID, s.Name, s.Description, s.Guest, s.Guest.Windows())
		fmt.Fprintf(&b, "  %d bytes, %d CPUs, %d cores each, UEFI %v, secure %v, virtio %v, %v\n", s.Memory, s.CPUs, s.CoresPerSocket, s.UEFI, s.SecureBoot, s.Virtio, s.Platform)
		for _, drive := range s.Drives {
			fmt.Fprintf(&b, "  drive %+v\n", drive)
		}
		for _, n := range s.NICs {
			fmt.Fprintf(&b, "  NIC %+v\n", n)
		}
	}
	return b.String()
}

// TestOthers reads what other products write.
func TestOthers(t *testing.T) {
	files, err := filepath.Glob("testdata/*.ovf")
	must(t, err)
	var b strings.Builder
	for _, name := range files {
		xml, err := os.ReadFile(name)
		must(t, err)
		d, err := Parse(xml)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		fmt.Fprintf(&b, "# %s\n%s\n", filepath.Base(name), text(d))
	}
	golden.Equal(t, "testdata/others.txt", b.String())
}

// ours is a descriptor of all that can be written.
func ours() *Descriptor {
	d := &Descriptor{Networks: []string{"office", "a <b> & \"c\""}}
	s := System{
		ID: "web", Name: "web & more", Description: "two\nlines", Guest: Guest{101, "otherLinux64Guest", "Linux"},
		Memory: 2 << 30, CPUs: 4, CoresPerSocket: 2, UEFI: true, SecureBoot: true, Platform: map[string]string{"secureboot": "true", "vga": "std"},
		NICs: []NIC{{"office", "02:00:00:00:00:01"}, {"a <b> & \"c\"", ""}},
	}
	for n := range 17 {
		file := File{ID: fmt.Sprint("file", n), Name: fmt.Sprint("web-disk", n, ".vmdk"), Size: int64(n+1) << 20}
		disk := Disk{ID: fmt.Sprint("vmdisk", n), File: file.ID, Format: VMDK, Capacity: int64(n+1) << 33}
		d.Files, d.Disks, s.Drives = append(d.Files, file), append(d.Disks, disk), append(s.Drives, Drive{Disk: disk.ID})
	}
	s.Drives = append(s.Drives, Drive{CD: true}, Drive{CD: true}, Drive{CD: true})
	d.Systems = []System{s}
	return d
}

// TestOurs: what is written is read as it was, and looks as it did.
func TestOurs(t *testing.T) {
	xml, err := ours().Append(nil)
	must(t, err)
	golden.Equal(t, "testdata/ours.xml", string(xml))
	d, err := Parse(xml)
	must(t, err)
	if !reflect.DeepEqual(d, ours()) {
		t.Errorf("%s\nwant %s", text(d), text(ours()))
	}
	bare := &Descriptor{Systems: []System{{ID: "x", Name: "x", Memory: 1 << 30, CPUs: 1}}}
	if xml, err = bare.Append(nil); err != nil {
		t.Fatal(err)
	}
	if d, err = Parse(xml); err != nil || d.Systems[0].UEFI || len(d.Systems[0].Drives) != 0 {
		t.Errorf("%s, %v", text(d), err)
	}
}

// describing is a descriptor with parts of one's own.
func describing(references, disks, hardware string) string {
	return `<Envelope xmlns:ovf="o" xmlns:rasd="r"><References>` + references + `</References><DiskSection>` + disks + `</DiskSection>` +
		`<VirtualSystem ovf:id="x"><VirtualHardwareSection>` + hardware + `</VirtualHardwareSection></VirtualSystem></Envelope>`
}

func hardwareOf(kind, more string) string {
	return `<Item><rasd:InstanceID>1</rasd:InstanceID><rasd:ResourceType>` + kind + `</rasd:ResourceType>` + more + `</Item>`
}

const (
	fileA = `<File ovf:id="a" ovf:href="a.vmdk"/>`
	diskA = `<Disk ovf:diskId="a" ovf:fileRef="a" ovf:capacity="1048576"/>`
)

// traps are descriptors that are refused, by what is wrong with them.
var traps = map[string]string{
	"empty": "", "noise": "noise", "another root": "<Other/>", "cut": "<Envelope><References>",
	"document type": `<!DOCTYPE Envelope [<!ENTITY a "aaaaaaaaaa">]><Envelope/>`, "entity": `<Envelope><VirtualSystem><Name>&a;</Name></VirtualSystem></Envelope>`,
	"deep": strings.Repeat("<Envelope>", maxDepth+1), "wide": "<Envelope>" + strings.Repeat("<a/>", maxElements),
	"collections": "<Envelope>" + strings.Repeat("<VirtualSystemCollection>", 1<<12), "many files": describing(strings.Repeat("<File/>", maxFiles+1), "", ""),
	"no hardware": `<Envelope><VirtualSystem/></Envelope>`, "much hardware": describing("", "", strings.Repeat("<Item/>", maxItems+1)),
	"path up": describing(`<File ovf:id="a" ovf:href="../a.vmdk"/>`, "", ""), "path inside": describing(`<File ovf:id="a" ovf:href="b/../../a.vmdk"/>`, "", ""),
	"path absolute": describing(`<File ovf:id="a" ovf:href="/etc/passwd"/>`, "", ""), "path empty": describing(`<File ovf:id="a"/>`, "", ""), "URL": describing(`<File ovf:id="a" ovf:href="http://x/a.vmdk"/>`, "", ""),
	"file twice": describing(fileA+fileA, "", ""), "name twice": describing(fileA+`<File ovf:id="b" ovf:href="./a.vmdk"/>`, "", ""), "negative size": describing(`<File ovf:id="a" ovf:href="a" ovf:size="-1"/>`, "", ""),
	"packed": describing(`<File ovf:id="a" ovf:href="a" ovf:compression="gzip"/>`, "", ""), "cut into files": describing(`<File ovf:id="a" ovf:href="a" ovf:chunkSize="1000"/>`, "", ""),
	"disk twice": describing(fileA, diskA+diskA, ""), "disk without a name": describing(fileA, `<Disk ovf:capacity="1"/>`, ""), "file of two disks": describing(fileA, diskA+`<Disk ovf:diskId="b" ovf:fileRef="a" ovf:capacity="1"/>`, ""),
	"no such file": describing("", diskA, ""), "no capacity": describing("", `<Disk ovf:diskId="b"/>`, ""), "capacity 0": describing("", `<Disk ovf:diskId="b" ovf:capacity="0"/>`, ""),
	"capacity of a property": describing("", `<Disk ovf:diskId="b" ovf:capacity="${size}"/>`, ""), "capacity beyond all": describing("", `<Disk ovf:diskId="b" ovf:capacity="9000000000000" ovf:capacityAllocationUnits="byte * 2^40"/>`, ""),
	"unit": describing("", `<Disk ovf:diskId="b" ovf:capacity="1" ovf:capacityAllocationUnits="furlong"/>`, ""), "large unit": describing("", `<Disk ovf:diskId="b" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^63"/>`, ""),
	"based on another": describing(fileA, `<Disk ovf:diskId="b" ovf:fileRef="a" ovf:parentRef="c" ovf:capacity="1"/>`, ""),
	"qcow2":            describing(`<File ovf:id="a" ovf:href="a.qcow2"/>`, diskA, ""), "unknown image": describing(`<File ovf:id="a" ovf:href="a.bin"/>`, diskA, ""),
	"no such disk": describing("", "", hardwareOf(typeDisk, `<rasd:HostResource>ovf:/disk/z</rasd:HostResource>`)), "memory": describing("", "", hardwareOf(typeMemory, `<rasd:VirtualQuantity>much</rasd:VirtualQuantity>`)),
	"processors": describing("", "", hardwareOf(typeCPU, `<rasd:VirtualQuantity>-4</rasd:VirtualQuantity>`)), "huge memory": describing("", "", hardwareOf(typeMemory, `<rasd:VirtualQuantity>9223372036854775807</rasd:VirtualQuantity>`)),
}

func TestRefusedDescriptors(t *testing.T) {
	if _, err := Parse([]byte(describing(fileA, diskA, hardwareOf(typeDisk, `<rasd:HostResource>ovf:/disk/a</rasd:HostResource>`)))); err != nil {
		t.Errorf("what the others are made of: %v", err)
	}
	for name, xml := range traps {
		switch _, err := Parse([]byte(xml)); {
		case !errors.Is(err, archive.ErrFormat):
			t.Errorf("%s: %v", name, err)
		case len(err.Error()) > 400:
			t.Errorf("%s: an error of %d bytes", name, len(err.Error()))
		}
	}
}

func TestUnits(t *testing.T) {
	for text, want := range map[string]int64{
		"": 7, "byte": 1, "bytes": 1, "byte * 2^20": 1 << 20, "byte*2^30": 1 << 30, "Bytes * 2^10": 1 << 10, "MegaBytes": 1 << 20, "MB": 1 << 20, "GigaBytes": 1 << 30, "KB": 1 << 10,
	} {
		if n, err := unitOf(text, 7); err != nil || n != want {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
}

func TestMAC(t *testing.T) {
	for text, want := range map[string]string{
		"02:00:00:00:00:0A": "02:00:00:00:00:0a", "0200-0000-000a": "02:00:00:00:00:0a", " 02000000000a": "02:00:00:00:00:0a", "": "", "0200": "", "02:00:00:00:00:0g": "", "7": "",
	} {
		if got := mac(text); got != want {
			t.Errorf("%q: %q", text, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.ovf")
	must(f, err)
	for _, name := range files {
		xml, err := os.ReadFile(name)
		must(f, err)
		f.Add(xml)
	}
	for _, xml := range traps {
		f.Add([]byte(xml))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		d, err := Parse(b)
		if err != nil {
			if !errors.Is(err, archive.ErrFormat) {
				t.Error(err)
			}
			return
		}
		for _, s := range d.Systems {
			for _, drive := range s.Drives {
				if _, ok := d.Find(drive.Disk); !ok && !drive.CD {
					t.Errorf("a drive has no disk: %+v", drive)
				}
			}
		}
		for _, disk := range d.Disks {
			if _, ok := d.file(disk.File); disk.Capacity <= 0 || !ok && disk.File != "" {
				t.Errorf("%+v", disk)
			}
		}
	})
}
