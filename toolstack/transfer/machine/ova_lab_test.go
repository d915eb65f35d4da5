//go:build lab

package machine_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"cairn/image/debian/debiantest"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
)

// TestRealOVA has QEMU read the images of an OVA that is written here, and takes one with
// images that QEMU has written.
func TestRealOVA(t *testing.T) {
	dir := t.TempDir()
	qemu := debiantest.Program(t, "qemu-img")
	r := newRig(t)
	from, vdis := r.insert("web", nil)
	r.full(vdis[0])
	big, err := r.disks.Create(t.Context(), storage.CreateSpec{SR: r.sr, Size: 300 * mib, Name: "big"})
	must(t, err)
	must(t, second(r.disks.memory(big).WriteAt([]byte("here"), 290*mib+5)))
	vdis = append(vdis, big)
	r.update(func(tx *db.Tx) {
		v := api.NewVBD()
		v.UUID, v.VM, v.VDI, v.Userdevice, v.Type, v.Mode = api.NewUUID(), from, big, "7", api.VBDTypeDisk, api.VBDModeRW
		db.Insert(tx, v)
	})
	members := unpack(t, r.ova(from))
	if len(members) != 5 {
		t.Fatalf("%d members", len(members))
	}
	theirs := members[:1:1]
	theirs[0].Edit = nil
	for n, vdi := range vdis {
		image, raw := filepath.Join(dir, fmt.Sprint(n, ".vmdk")), filepath.Join(dir, fmt.Sprint(n, ".raw"))
		must(t, os.WriteFile(image, members[n+1].Body, 0o600))
		qemu("convert", "-f", "vmdk", "-O", "raw", image, raw)
		got, err := os.ReadFile(raw)
		must(t, err)
		if !bytes.Equal(got, r.disks.memory(vdi).Bytes()) {
			t.Errorf("QEMU reads disk %d as something else", n)
		}
		qemu("convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", raw, image)
		text, err := os.ReadFile(image)
		must(t, err)
		theirs = append(theirs, member{Name: members[n+1].Name, Body: text})
		theirs[0].Body = bytes.Replace(theirs[0].Body, fmt.Appendf(nil, `ovf:size="%d"`, len(members[n+1].Body)), fmt.Appendf(nil, `ovf:size="%d"`, len(text)), 1)
	}
	r.same(vdis, r.vdis(r.mustImport("", pack(theirs...))))
}
