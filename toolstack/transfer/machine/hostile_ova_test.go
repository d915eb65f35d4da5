package machine_test

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"fmt"
	"strings"
	"testing"

	"cairn/toolstack/api"
)

// envelope is a descriptor of one VM with one drive for each of its disks.
func envelope(files, disks string, drives int, more string) member {
	text := `<Envelope xmlns:ovf="o" xmlns:rasd="r"><References>` + files + `</References><DiskSection>` + disks + `</DiskSection>` +
		`<VirtualSystem ovf:id="trap"><VirtualHardwareSection>` + hardware(4, `<rasd:VirtualQuantity>256</rasd:VirtualQuantity>`)
	for n := range drives {
		text += hardware(17, fmt.Sprintf(`<rasd:HostResource>ovf:/disk/d%d</rasd:HostResource>`, n))
	}
	return member{Name: "trap.ovf", Body: []byte(text + more + `</VirtualHardwareSection></VirtualSystem></Envelope>`)}
}

func hardware(kind int, more string) string {
	return fmt.Sprintf(`<Item><rasd:ResourceType>%d</rasd:ResourceType>%s</Item>`, kind, more)
}

func file(n int, name, more string) string {
	return fmt.Sprintf(`<File ovf:id="f%d" ovf:href="%s" %s/>`, n, name, more)
}

func diskOf(n int, capacity int64) string {
	return fmt.Sprintf(`<Disk ovf:diskId="d%d" ovf:fileRef="f%d" ovf:capacity="%d"/>`, n, n, capacity)
}

// one describes a disk of 2 MiB in a file.
func one(name, more string) member { return envelope(file(0, name, more), diskOf(0, 2*mib), 1, "") }

func manifest(lines ...string) member {
	return member{Name: "trap.mf", Body: []byte(strings.Join(lines, "\n"))}
}

func sum(m member) string { return fmt.Sprintf("SHA256(%s)= %x", m.Name, sha256.Sum256(m.Body)) }

// trapsOVA are hostile OVAs, by name.
func trapsOVA(t *testing.T) map[string][]byte {
	b := bytes.Repeat([]byte("0123456789abcdef"), 2*mib/16)
	v, h := images(t, b)
	image, dynamic, plain := member{Name: "a.vmdk", Body: v}, member{Name: "a.vhd", Body: h}, member{Name: "a.raw", Body: b}
	vm, raw := one("a.vmdk", ""), one("a.raw", "")
	change := func(m member, at int, with ...byte) member {
		m.Body = bytes.Clone(m.Body)
		copy(m.Body[at:], with)
		return m
	}
	named := func(m member, name string) member { m.Name = name; return m }
	lying := func(m member, n int64) member { m.Edit = ownSize(n); return m }
	link := func(k byte) member { return member{Name: "a.vmdk", Edit: kind(k)} }
	less := envelope(file(0, "a.vmdk", ""), diskOf(0, mib), 1, "")
	lessOf := func(name string) member { return envelope(file(0, name, ""), diskOf(0, mib), 1, "") }
	two := envelope(file(0, "a.raw", "")+file(1, "b.raw", ""), diskOf(0, 2*mib)+diskOf(1, 2*mib), 2, "")
	var others []member
	for n := range 70 {
		others = append(others, member{Name: fmt.Sprint("x", n), Body: []byte("x")})
	}
	drives, nics := envelope("", "", 0, strings.Repeat(hardware(15, ""), 300)), envelope("", "", 0, strings.Repeat(hardware(10, ""), 9))
	sized := func(m member, n int64) []byte { return pack(one(m.Name, fmt.Sprintf(`ovf:size="%d"`, n)), m) }
	return map[string][]byte{
		"descriptor-noise": pack(member{Name: "x.ovf", Body: []byte("noise")}), "descriptor-empty": pack(member{Name: "x.ovf"}), "descriptor-cut": pack(member{Name: "x.ovf", Body: vm.Body[:99]}),
		"descriptor-huge": pack(lying(vm, 1<<40)), "descriptor-lies": pack(lying(vm, 3*mib)), "descriptor-link": pack(member{Name: "x.ovf", Edit: kind(tar.TypeSymlink)}),
		"descriptor-second": pack(image, vm), "descriptor-twice": pack(vm, vm), "descriptor-other": pack(vm, member{Name: "y.ovf", Body: vm.Body}), "descriptor-bomb": gzipped(pack(member{Name: "x.ovf", Body: make([]byte, 8*mib)})),
		"descriptor-entities": pack(member{Name: "x.ovf", Body: []byte(`<!DOCTYPE v [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]><Envelope>&b;</Envelope>`)}),
		"descriptor-file":     pack(member{Name: "x.ovf", Body: []byte(`<!DOCTYPE v [<!ENTITY a SYSTEM "file:///etc/passwd">]><Envelope>&a;</Envelope>`)}),
		"descriptor-deep":     pack(member{Name: "x.ovf", Body: []byte(strings.Repeat("<Envelope>", 1<<16))}), "descriptor-no-vm": pack(member{Name: "x.ovf", Body: []byte("<Envelope/>")}),
		"descriptor-path": pack(named(vm, "../x.ovf")), "href-up": pack(one("../a.vmdk", ""), image), "href-absolute": pack(one("/a.vmdk", ""), image), "href-url": pack(one("http://x/a.vmdk", ""), image),
		"path-up": pack(vm, named(image, "../a.vmdk")), "path-inside": pack(vm, named(image, "x/../a.vmdk")), "path-absolute": pack(vm, named(image, "/a.vmdk")), "path-long": pack(vm, named(image, strings.Repeat("a/", 200)+"b")),
		"symlink": pack(vm, link(tar.TypeSymlink)), "hardlink": pack(vm, link(tar.TypeLink)), "block-device": pack(vm, link(tar.TypeBlock)), "folder": pack(vm, member{Name: "a/", Edit: kind(tar.TypeDir)}),
		"file-missing": pack(vm), "file-second-missing": pack(two, plain), "file-twice": pack(vm, image, image), "file-twice-dot": pack(vm, image, named(image, "./a.vmdk")),
		"file-cut": pack(vm, image)[:40000], "file-lies-long": pack(vm, lying(image, 8<<30)), "file-lies-short": pack(raw, lying(plain, 512)), "size-less": sized(image, 1), "size-more": sized(image, 1<<40),
		"packed": pack(one("a.vmdk", `ovf:compression="gzip"`), image), "cut-into-files": pack(one("a.vmdk", `ovf:chunkSize="512"`), image),
		"vmdk-noise": pack(vm, named(plain, "a.vmdk")), "vmdk-cut": pack(vm, member{Name: "a.vmdk", Body: v[:len(v)-2048]}), "vmdk-grain": pack(vm, change(image, 65536+20, 0xff, 0xff, 0xff)), "vmdk-empty": pack(vm, member{Name: "a.vmdk"}),
		"vmdk-capacity": pack(vm, change(image, 12, 0, 0, 0, 0, 1)), "vmdk-larger": pack(less, image), "vhd-noise": pack(one("a.vhd", ""), named(plain, "a.vhd")), "vhd-larger": pack(lessOf("a.vhd"), dynamic),
		"vhd-cut": pack(one("a.vhd", ""), member{Name: "a.vhd", Body: h[:len(h)-513]}), "raw-larger": pack(lessOf("a.raw"), plain), "qcow2": pack(one("a.qcow2", ""), named(plain, "a.qcow2")),
		"capacity-zero": pack(envelope(file(0, "a.raw", ""), diskOf(0, 0), 1, ""), plain), "capacity-negative": pack(envelope(file(0, "a.raw", ""), diskOf(0, -1), 1, ""), plain),
		"capacity-huge": pack(envelope(file(0, "a.raw", ""), diskOf(0, 1<<62), 1, ""), plain), "capacity-overflow": pack(envelope("", `<Disk ovf:diskId="d0" ovf:capacity="9223372036854775807" ovf:capacityAllocationUnits="byte * 2^50"/>`, 1, "")),
		"memory-none": pack(member{Name: "x.ovf", Body: []byte(`<Envelope><VirtualSystem><VirtualHardwareSection/></VirtualSystem></Envelope>`)}), "vcpus-many": pack(envelope("", "", 0, hardware(3, `<rasd:VirtualQuantity>100000</rasd:VirtualQuantity>`))),
		"drives-many": pack(drives), "nics-many": pack(nics), "drive-unknown": pack(envelope("", "", 1, "")),
		"manifest-wrong-behind": pack(vm, image, manifest(sum(vm), sum(change(image, 9, 'x')))), "manifest-wrong-before": pack(raw, manifest(sum(raw), sum(change(plain, 9, 'x'))), plain), "manifest-wrong-descriptor": pack(raw, manifest(sum(vm)), plain, manifest()),
		"manifest-of-other": pack(raw, manifest("SHA256(trap.ovf)= 00"), plain), "manifest-missing-file": pack(raw, plain, manifest(sum(raw), sum(plain), sum(image))), "manifest-noise": pack(raw, plain, manifest("noise")),
		"manifest-md5": pack(raw, plain, manifest("MD5(a.raw)= 00")), "manifest-late": pack(raw, plain, manifest("SHA512(a.raw)= 00")), "manifest-line-twice": pack(raw, manifest(sum(raw), sum(raw)), plain), "manifest-path": pack(raw, manifest("SHA1(../a)= 00"), plain),
		"manifest-twice": pack(raw, plain, manifest(sum(raw)), member{Name: "y.mf"}), "manifest-huge": pack(raw, plain, member{Name: "trap.mf", Body: make([]byte, 2*mib)}),
		"other-huge": pack(raw, member{Name: "x", Body: make([]byte, 2*mib)}, plain), "others-many": pack(append([]member{raw}, others...)...), "no-mark": pack(raw, plain)[:512*2+len(raw.Body)/512*512+512+2*mib],
		"zstd-cut": zipped(pack(vm, image))[:300], "xva-inside": pack(vm, described(1, nil)),
	}
}

func TestHostileOVA(t *testing.T) { spring(t, trapsOVA(t), "testdata/hostile-ova.txt") }

// TestOVABombEnds: an OVA, and all kinds of members.
func TestOVABombEnds(t *testing.T) {
	raw := one("a.raw", "")
	defuse(t, map[string][]byte{
		"descriptor": pack(member{Name: "x.ovf", Edit: ownSize(1 << 50)}), "image": pack(raw, member{Name: "a.raw", Edit: ownSize(1 << 50)}),
		"other": pack(raw, member{Name: "x", Edit: ownSize(1 << 50)}), "manifest": pack(raw, member{Name: "x.mf", Edit: ownSize(1 << 50)}),
	})
}

// TestOVARefusedRequests: what an OVA cannot hold is refused before it begins, and an
// archive of another format than was said where that shows.
func TestOVARefusedRequests(t *testing.T) {
	r := newRig(t)
	from, _ := r.insert("web", nil)
	running, _ := r.insert("busy", func(vm *api.VM) { vm.PowerState = api.VMPowerStateRunning })
	asOVA, asXVA := r.ova(from), r.get("/export?format=xva&ref="+string(from))
	before := r.state()
	for query, want := range map[string]string{
		"format=zip": "INVALID_VALUE [format zip]", "format=ova&use_compression=zstd": "INVALID_VALUE [use_compression zstd]",
		"format=ova&ref=" + string(running): "VM_BAD_POWER_STATE [" + string(running) + " halted; suspended running]", "format=ova&ref=OpaqueRef:none": "HANDLE_INVALID [VM OpaqueRef:none]",
		"format=ova&include_snapshots=true": "INVALID_VALUE [include_snapshots true]", "format=ova&preserve_power_state=true": "INVALID_VALUE [preserve_power_state true]",
	} {
		var task string
		r.Must(&task, "task.create", "export", "")
		resp, err := r.HTTP.Client().Get(r.HTTP.URL + "/export?" + query + "&ref=" + string(from) + "&session_id=" + r.Session + "&task_id=" + task)
		must(t, err)
		resp.Body.Close()
		if _, err := r.outcome(task); code(err) != want {
			t.Errorf("%s: %v", query, err)
		}
	}
	for _, c := range []struct {
		path, want string
		body       []byte
	}{
		{"/import?format=zip", "INVALID_VALUE [format zip]", asOVA},
		{"/import?format=ova", "IMPORT_ERROR_UNEXPECTED_FILE [*.ovf ova.xml]", asXVA},
		{"/import?format=xva", "IMPORT_ERROR_UNEXPECTED_FILE [ova.xml web.ovf]", asOVA},
		{"/import_metadata?x=y", "IMPORT_ERROR_UNEXPECTED_FILE [ova.xml web.ovf]", asOVA},
	} {
		if _, err := r.put(c.path, bytes.NewReader(c.body), int64(len(c.body))); code(err) != c.want {
			t.Errorf("%s: %v", c.path, err)
		}
	}
	r.unchanged("refused", before)
	r.mustImport("&format=xva", asXVA)
}
