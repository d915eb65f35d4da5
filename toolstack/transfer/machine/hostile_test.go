package machine_test

import (
	"archive/tar"
	"bytes"
	"fmt"
	"io"
	"maps"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"

	"cairn/golden"
	"cairn/toolstack/api"
	"cairn/toolstack/transfer/archive/archivetest"
	"cairn/toolstack/transfer/ova"
)

var uuids = regexp.MustCompile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

type member = archivetest.Member

// ownSize is a header that lies about what follows it.
func ownSize(n int64) func(*tar.Header) { return func(h *tar.Header) { h.Size = n } }

func kind(k byte) func(*tar.Header) {
	return func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = k, "/etc/shadow", 0 }
}

func pack(members ...member) []byte { return archivetest.Pack(members...) }

// chunk is one with its right checksum.
func chunk(name string, body []byte) []member {
	return []member{{Name: name, Body: body}, {Name: name + ".xxhash", Body: fmt.Appendf(nil, "%016X", xxhash.Sum64(body))}}
}

func zipped(b []byte) []byte {
	var out bytes.Buffer
	w, err := zstd.NewWriter(&out, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		panic(err)
	}
	w.Write(b)
	w.Close()
	return out.Bytes()
}

func gzipped(b []byte) []byte {
	var out bytes.Buffer
	w := pgzip.NewWriter(&out)
	w.Write(b)
	w.Close()
	return out.Bytes()
}

// described is an ova.xml of a VM with disks of 3 MiB, changed by edit.
func described(disks int, edit func(vm *api.VM, vbds []*api.VBD, vdis []*api.VDI)) member {
	vm := api.NewVM()
	vm.UUID, vm.NameLabel, vm.HVMBootPolicy = "11111111-2222-3333-4444-555555555555", "trap", "BIOS order"
	vm.MemoryStaticMax, vm.MemoryDynamicMax, vm.MemoryDynamicMin, vm.MemoryStaticMin, vm.VCPUsMax, vm.VCPUsAtStartup = 1<<28, 1<<28, 1<<28, 1<<28, 1, 1
	all := []ova.Named{{Ref: "OpaqueRef:vm", Record: vm}}
	var vbds []*api.VBD
	var vdis []*api.VDI
	for i := range disks {
		vbd, vdi := api.NewVBD(), api.NewVDI()
		ref := fmt.Sprint("OpaqueRef:disk", i)
		vbd.VM, vbd.VDI, vbd.Userdevice, vbd.Type, vbd.Mode = "OpaqueRef:vm", api.VDIRef(ref), fmt.Sprint(i%255), api.VBDTypeDisk, api.VBDModeRW
		vdi.VirtualSize = 3 * mib
		vbds, vdis = append(vbds, vbd), append(vdis, vdi)
		all = append(all, ova.Named{Ref: ref, Record: vdi}, ova.Named{Ref: fmt.Sprint("OpaqueRef:drive", i), Record: vbd})
	}
	if edit != nil {
		edit(vm, vbds, vdis)
	}
	d := &ova.Document{Version: ova.Current("evil", "", "XCP-ng", "8", ""), Objects: ova.Number(all)}
	return member{Name: "ova.xml", Body: d.Append(nil)}
}

func xml(text string) member { return member{Name: "ova.xml", Body: []byte(text)} }

func with(first member, more ...[]member) []byte {
	all := []member{first}
	for _, m := range more {
		all = append(all, m...)
	}
	return pack(all...)
}

const version = `<member><name>version</name><value><struct/></value></member>`

func objects(list string) member {
	return xml(`<value><struct>` + version + `<member><name>objects</name><value><array><data>` + list + `</data></array></value></member></struct></value>`)
}

// traps are hostile archives, by name. Disks are Ref:1, Ref:3 and so on.
func traps() map[string][]byte {
	whole, one := bytes.Repeat([]byte("x"), mib), described(1, nil)
	disk := func(name string) []member {
		return append(append(chunk(name+"/00000000", whole), chunk(name+"/00000001", whole)...), chunk(name+"/00000002", whole)...)
	}
	good := with(one, disk("Ref:1"))
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8} // a window of 2 GiB
	size := func(n int64) []byte {
		return with(described(1, func(_ *api.VM, _ []*api.VBD, vdis []*api.VDI) { vdis[0].VirtualSize = n }), disk("Ref:1"))
	}
	vm := func(edit func(*api.VM)) []byte {
		return with(described(1, func(vm *api.VM, _ []*api.VBD, _ []*api.VDI) { edit(vm) }), disk("Ref:1"))
	}
	return map[string][]byte{
		"empty": {}, "noise": bytes.Repeat([]byte("noise"), 2000), "zeros": make([]byte, 4096), "gzip-noise": append([]byte{0x1f, 0x8b}, bytes.Repeat([]byte("noise"), 20)...),
		"zstd-noise": append([]byte{0x28, 0xb5, 0x2f, 0xfd}, bytes.Repeat([]byte("noise"), 20)...), "zstd-window": append(frame, make([]byte, 64)...),

		"path-up": with(one, chunk("../../../../tmp/00000000", whole)), "path-absolute": with(one, chunk("/etc/passwd/00000000", whole)), "path-inside": with(one, chunk("Ref:1/../Ref:1/00000000", whole)),
		"path-dot": with(one, chunk("./Ref:1/00000000", whole)), "path-long": with(one, chunk(strings.Repeat("a/", 100)+"00000000", whole)), "path-none": with(one, chunk("00000000", whole)),
		"name-sign": with(one, chunk("Ref:1/-0000001", whole)), "name-huge": with(one, chunk("Ref:1/9223372036854775807", whole)), "name-overflow": with(one, chunk("Ref:1/18446744073709551616", whole)),
		"symlink": with(one, []member{{Name: "Ref:1/00000000", Edit: kind(tar.TypeSymlink)}}), "hardlink": with(one, []member{{Name: "Ref:1/00000000", Edit: kind(tar.TypeLink)}}),
		"block-device": with(one, []member{{Name: "Ref:1/00000000", Edit: kind(tar.TypeBlock)}}), "fifo": with(one, []member{{Name: "Ref:1/00000000", Edit: kind(tar.TypeFifo)}}),
		"folder": with(one, []member{{Name: "Ref:1/", Edit: kind(tar.TypeDir)}}),
		"sparse": sparse(one, whole),

		"xml-second": pack(append(disk("Ref:1"), one)...), "xml-other": pack(member{Name: "manifest.mf", Body: []byte("x")}), "xml-link": pack(member{Name: "ova.xml", Edit: kind(tar.TypeSymlink)}),
		"xml-huge": pack(member{Name: "ova.xml", Edit: ownSize(1 << 40)}), "xml-lies": pack(member{Name: "ova.xml", Body: one.Body, Edit: ownSize(60 << 20)}), "xml-bomb": pack(xml(strings.Repeat(" ", 8<<20))),
		"xml-entities": with(xml(`<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]><value>&b;</value>`)), "xml-file": with(xml(`<!DOCTYPE v [<!ENTITY a SYSTEM "file:///etc/passwd">]><value>&a;</value>`)),
		"xml-deep": with(xml(strings.Repeat("<value><array><data>", 1<<14))), "xml-wide": with(objects(`<value><struct><member><name>class</name>` + strings.Repeat("<value/>", 1<<16))),
		"xml-values": with(objects(`<value><array><data>` + strings.Repeat("<value/>", 1<<16) + `</data></array></value>`)),
		"xml-cut":    with(xml(string(one.Body[:len(one.Body)/2]))), "xml-none": with(xml("")), "xml-twice": with(one, []member{one}), "xml-no-vm": with(objects("")),

		"size-zero": size(0), "size-negative": size(-1), "size-huge": size(1<<63 - 1), "size-of-no-disk": size(1 << 60), "size-less": size(mib), "size-more": size(100 * mib),
		"memory-none": vm(func(v *api.VM) { v.MemoryStaticMax = 0 }), "memory-negative": vm(func(v *api.VM) { v.MemoryStaticMin = -1 }), "vcpus-many": vm(func(v *api.VM) { v.VCPUsMax = 1 << 40 }),
		"place-twice": with(described(256, nil)), "disks-many": with(member{Name: "ova.xml", Body: manyDisks(3, 250)}),
		"place-outside":   with(described(1, func(_ *api.VM, vbds []*api.VBD, _ []*api.VDI) { vbds[0].Userdevice = "/dev/sda" })),
		"drive-of-nobody": with(described(1, func(_ *api.VM, vbds []*api.VBD, _ []*api.VDI) { vbds[0].VM = "OpaqueRef:drive0" })),

		"disk-missing": with(one), "disk-second-missing": with(described(2, nil), disk("Ref:1")), "disk-unknown": with(one, disk("Ref:9")), "disk-is-vm": with(one, disk("Ref:0")),
		"disk-twice": with(described(2, nil), disk("Ref:1"), disk("Ref:3"), disk("Ref:1")), "disk-no-end": with(one, chunk("Ref:1/00000000", whole), chunk("Ref:1/00000001", whole)),
		"disk-mixed": with(described(2, nil), chunk("Ref:1/00000000", whole), chunk("Ref:3/00000000", whole), chunk("Ref:1/00000001", whole)),
		"chunk-back": with(one, chunk("Ref:1/00000001", whole), chunk("Ref:1/00000000", whole)), "chunk-twice": with(one, chunk("Ref:1/00000000", whole), chunk("Ref:1/00000000", whole)),
		"chunk-beyond": with(one, chunk("Ref:1/00000003", whole)), "chunk-far": with(one, chunk("Ref:1/08796093022207", whole)), "chunk-short": with(one, chunk("Ref:1/00000000", whole[:5])),
		"chunk-long": with(one, chunk("Ref:1/00000000", append(whole, 'x'))), "chunk-huge": with(one, []member{{Name: "Ref:1/00000000", Body: whole, Edit: ownSize(8 << 30)}}),
		"chunk-lies": with(one, []member{{Name: "Ref:1/00000000", Body: whole[:512], Edit: ownSize(mib)}}), "chunk-bomb": with(one, chunk("Ref:1/00000000", make([]byte, 8*mib))),
		"sum-none": with(one, []member{{Name: "Ref:1/00000000", Body: whole}, {Name: "Ref:1/00000001", Body: whole}}), "sum-wrong": with(one, []member{{Name: "Ref:1/00000000", Body: whole}, {Name: "Ref:1/00000000.xxhash", Body: []byte("0123456789ABCDEF")}}),
		"sum-of-other": with(one, []member{{Name: "Ref:1/00000000", Body: whole}, chunk("Ref:1/00000001", whole)[1]}), "sum-alone": with(one, chunk("Ref:1/00000000", whole)[1:]),
		"sum-huge": with(one, []member{{Name: "Ref:1/00000000", Body: whole}, {Name: "Ref:1/00000000.xxhash", Body: make([]byte, 2*mib)}}),
		"cut-tar":  good[:len(good)/2], "cut-last": good[:len(good)-mib-2048],
	}
}

// sparse is an archive with a member whose bytes are not all in it.
func sparse(first member, body []byte) []byte {
	h := make([]byte, 512)
	copy(h, "Ref:1/00000000")
	copy(h[100:], "0000600\x000000000\x000000000\x0000000001000\x0000000000000\x00")
	h[156] = 'S'
	copy(h[257:], "ustar  \x00")
	copy(h[386:], "00000000000\x0000000001000\x00")
	copy(h[483:], "00004000000\x00")
	copy(h[148:], "        ")
	sum := 0
	for _, c := range h {
		sum += int(c)
	}
	copy(h[148:], fmt.Sprintf("%06o\x00 ", sum))
	b := pack(first)
	return append(append(b[:len(b)-1024], h...), append(body[:512:512], make([]byte, 1024)...)...)
}

// manyDisks describes far more than anybody makes.
func manyDisks(vms, each int) []byte {
	d := &ova.Document{Version: ova.Current("evil", "", "XCP-ng", "8", "")}
	for i := range vms {
		vm := api.NewVM()
		vm.MemoryStaticMax, vm.MemoryDynamicMax, vm.MemoryDynamicMin, vm.VCPUsMax, vm.VCPUsAtStartup = 1<<28, 1<<28, 1<<28, 1, 1
		id := fmt.Sprint("vm", i)
		d.Objects = append(d.Objects, ova.Object{ID: id, Record: vm})
		for k := range each {
			vbd, vdi := api.NewVBD(), api.NewVDI()
			disk := fmt.Sprint("disk", i, ".", k)
			vbd.VM, vbd.VDI, vbd.Userdevice, vbd.Type, vbd.Mode, vdi.VirtualSize = api.VMRef(id), api.VDIRef(disk), fmt.Sprint(k), api.VBDTypeDisk, api.VBDModeRW, 10<<40
			d.Objects = append(d.Objects, ova.Object{ID: disk, Record: vdi}, ova.Object{ID: "drive of " + disk, Record: vbd})
		}
	}
	return d.Append(nil)
}

// packed are traps in the packing they are about.
func packed(name string, b []byte) []byte {
	switch {
	case strings.HasPrefix(name, "empty") || strings.HasPrefix(name, "noise") || strings.HasPrefix(name, "gzip-") || strings.HasPrefix(name, "zstd-"):
		return b
	case strings.HasSuffix(name, "-bomb"):
		return gzipped(b)
	}
	return zipped(b)
}

// TestHostile imports every trap, packed.
func TestHostile(t *testing.T) {
	all := traps()
	for name, b := range all {
		all[name] = packed(name, b)
	}
	spring(t, all, "testdata/hostile.txt")
}

// spring imports archives. None leaves anything, makes a disk of which no byte came, or
// takes much memory.
func spring(t *testing.T, all map[string][]byte, path string) {
	t.Helper()
	if len(all) < 60 {
		t.Fatalf("%d hostile archives", len(all))
	}
	r := newRig(t)
	before := r.state()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		refs, err := r.importing("&force=true", all[name])
		if err == nil {
			t.Errorf("%s became %v", name, refs)
		}
		made := 0
		for _, verb := range r.hostd.Verbs() {
			if strings.HasPrefix(verb, "create ") {
				made++
			}
		}
		if made > 2 {
			t.Errorf("%s: %d disks were made", name, made)
		}
		line := uuids.ReplaceAllString(code(err), "UUID")
		if len(line) > 400 {
			t.Errorf("%s: an error of %d bytes", name, len(line))
		}
		fmt.Fprintf(&b, "%-26s %s\n", name, line)
		r.unchanged(name, before)
	}
	golden.Equal(t, path, b.String())
}

// endless is a tar of a member that never ends, of which as much was read as is counted.
type endless struct {
	head io.Reader
	n    int64
}

func (e *endless) Read(p []byte) (int, error) {
	if n, err := e.head.Read(p); err == nil {
		return n, nil
	}
	clear(p)
	e.n += int64(len(p))
	return len(p), nil
}

// TestBombEnds: an XVA, and what it is made of.
func TestBombEnds(t *testing.T) {
	defuse(t, map[string][]byte{
		"xml":   pack(member{Name: "ova.xml", Edit: ownSize(1 << 50)}),
		"chunk": pack(described(1, nil), member{Name: "Ref:1/00000000", Edit: ownSize(1 << 50)}),
	})
}

// defuse imports archives whose last members never end: what claims to be far more than
// it describes ends where that shows, and takes no memory.
func defuse(t *testing.T, all map[string][]byte) {
	t.Helper()
	r := newRig(t)
	before := r.state()
	var memory, after runtime.MemStats
	runtime.ReadMemStats(&memory)
	for name, b := range all {
		e := &endless{head: bytes.NewReader(b[:len(b)-1024])}
		if _, err := r.put("/import?", io.LimitReader(e, 1<<40), 1<<40); !strings.HasPrefix(code(err), "IMPORT_ERROR [") {
			t.Errorf("%s: %v", name, err)
		}
		if e.n > 64*mib {
			t.Errorf("%s: %d bytes were read", name, e.n)
		}
		r.unchanged(name, before)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - memory.TotalAlloc; used > 64*mib {
		t.Errorf("%d bytes were allocated", used)
	}
}
