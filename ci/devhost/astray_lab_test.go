//go:build lab

package devhost

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"

	"cairn/toolstack/hypervisor"
)

// dialed hands the library a connection that is open already.
type dialed struct{ net.Conn }

func (d dialed) Dial() (net.Conn, error) { return d.Conn, nil }

// TestLibvirtDiskAstray: a libvirtd that is killed between QEMU's switch to an overlay
// and its own note of that says for ever that the disk is where it was. What the guest
// has written since is found, and brought to where libvirt says.
func TestLibvirtDiskAstray(t *testing.T) {
	l, h, v := start(t)
	ctx := bounded(t)
	base := v.Create(t, "base.qcow2", 8<<20)
	spec, id := withDisk(base)
	must(t, h.Start(ctx, spec, true))
	over := v.Overlay(t, "over.qcow2", base)
	conn, err := net.Dial("unix", l.Socket())
	must(t, err)
	raw := golibvirt.NewWithDialer(dialed{conn})
	must(t, raw.Connect())
	d := golibvirt.Domain{Name: spec.UUID, UUID: golibvirt.UUID(uuid.MustParse(spec.UUID)), ID: -1}
	for _, command := range []string{
		fmt.Sprintf(`{"execute":"blockdev-add","arguments":{"driver":"file","node-name":"libvirt-2-storage","filename":%q}}`, over.Path),
		`{"execute":"blockdev-add","arguments":{"driver":"qcow2","node-name":"libvirt-2-format","file":"libvirt-2-storage","backing":null}}`,
		`{"execute":"blockdev-snapshot","arguments":{"node":"libvirt-1-format","overlay":"libvirt-2-format"}}`,
		fmt.Sprintf(`{"execute":"human-monitor-command","arguments":{"command-line":"qemu-io -d ua-%s \"write -P 7 1M 64k\""}}`, id),
	} {
		if _, err := raw.QEMUDomainMonitorCommand(d, command, 0); err != nil {
			t.Fatalf("%s: %v", command, err)
		}
	}
	hw, err := h.Hardware(ctx, spec.UUID)
	must(t, err)
	if disk, _ := hw.Disk(id); !disk.Source.Equal(&base) {
		t.Errorf("the disk is on %+v", disk.Source)
	}
	must(t, os.Remove(v.outside(over))) // as whoever believes libvirt does
	again := v.Overlay(t, "again.qcow2", base)
	must(t, h.Snapshot(ctx, spec.UUID, []hypervisor.Overlay{{ID: id, Source: again}}))
	unknown := v.Create(t, "unknown.qcow2", 8<<20)
	const cable = `{"execute":"netdev_add","arguments":{"type":"hubport","id":"hostua-nic","hubid":7}}`
	tell := func(command string) {
		t.Helper()
		answer, err := raw.QEMUDomainMonitorCommand(d, command, 0)
		if must(t, err); strings.Contains(string(answer), `"error"`) {
			t.Fatalf("%s: %s", command, answer)
		}
	}
	for _, command := range []string{
		fmt.Sprintf(`{"execute":"blockdev-add","arguments":{"driver":"file","node-name":"libvirt-9-storage","filename":%q}}`, unknown.Path),
		`{"execute":"blockdev-add","arguments":{"driver":"qcow2","node-name":"libvirt-9-format","file":"libvirt-9-storage"}}`,
		`{"execute":"device_add","arguments":{"driver":"scsi-hd","bus":"scsi0.0","id":"ua-unknown","drive":"libvirt-9-format"}}`,
		cable,
		`{"execute":"device_add","arguments":{"driver":"virtio-net-pci","bus":"pci.9","id":"ua-nic","netdev":"hostua-nic"}}`,
	} {
		tell(command)
	}
	if _, err := h.Hardware(ctx, spec.UUID); err != nil {
		t.Errorf("with a disk and a NIC that libvirt does not know of: %v", err)
	}
	tell(cable) // only one of a name can be: the other has been cut
	if _, err := h.Hardware(ctx, spec.UUID); err != nil {
		t.Errorf("with half of a NIC: %v", err)
	}
	tell(cable)
	answer, err := raw.QEMUDomainMonitorCommand(d, `{"execute":"query-blockstats"}`, 0)
	if must(t, err); strings.Contains(string(answer), "ua-unknown") {
		t.Errorf("the guest keeps it: %s", answer)
	}
	must(t, h.Destroy(ctx, spec.UUID))
	v.Check(t, again)
	plain := filepath.Join(t.TempDir(), "raw")
	v.image(t, "convert", "-f", "qcow2", "-O", "raw", v.outside(again), plain)
	text, err := os.ReadFile(plain)
	must(t, err)
	if !bytes.Equal(text[1<<20:1<<20+64<<10], bytes.Repeat([]byte{7}, 64<<10)) {
		t.Error("what the guest wrote is lost")
	}
}
