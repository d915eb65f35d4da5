package hypervisor

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"

	"libvirt.org/go/libvirtxml"
)

// A domain of two disks as libvirt describes it; the first has a layer beneath.
const twoDisks = `<domain type='kvm'><devices>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/sr/two.qcow2' index='4'/>
 <backingStore type='file' index='3'><format type='qcow2'/><source file='/sr/one.qcow2'/><backingStore/></backingStore>
 <target dev='sda' bus='scsi'/><alias name='ua-a'/></disk>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/sr/other.qcow2' index='2'/><backingStore/>
 <target dev='sdb' bus='scsi'/><alias name='ua-b'/></disk>
<disk type='file' device='cdrom'><target dev='sdc' bus='sata'/><alias name='ua-c'/></disk>
<interface type='bridge'><alias name='ua-n'/></interface>
</devices></domain>`

// What QEMU says when both agree.
const (
	drivesAgree = `[{"device":"","qdev":"ua-a","node-name":"libvirt-4-format","backing":{"node-name":"libvirt-3-format"}},
{"qdev":"ua-b","node-name":"libvirt-2-format"},{"qdev":"ua-c"}]`
	nodesAgree = `[{"node-name":"libvirt-4-format"},{"node-name":"libvirt-4-storage"},{"node-name":"libvirt-3-format"},
{"node-name":"libvirt-3-storage"},{"node-name":"libvirt-2-format"},{"node-name":"libvirt-2-storage"},
{"node-name":"libvirt-pflash0-storage"},{"node-name":"#block042"}]`
	devicesAgree = `[{"name":"type","type":"string"},{"name":"ua-a","type":"child<scsi-hd>"},{"name":"ua-b","type":"child<scsi-hd>"},
{"name":"ua-c","type":"child<ide-cd>"},{"name":"ua-n","type":"child<virtio-net-pci>"},{"name":"pci.1","type":"child<pcie-root-port>"}]`
)

func TestDiverged(t *testing.T) {
	extra := nodesAgree[:len(nodesAgree)-1] + `,{"node-name":"libvirt-5-storage"},{"node-name":"libvirt-5-format"}]`
	for _, c := range []struct {
		name, x, drives, nodes, devices string
		want                            repairs
		wrong                           bool
	}{
		{"they agree", twoDisks, drivesAgree, nodesAgree, devicesAgree, repairs{}, false},
		{"an overlay that nobody uses", twoDisks, drivesAgree, extra, devicesAgree, repairs{drop: []string{"libvirt-5-format", "libvirt-5-storage"}}, false},
		{
			"an overlay that the guest writes to", twoDisks,
			`[{"qdev":"ua-a","node-name":"libvirt-5-format","backing":{"node-name":"libvirt-4-format","backing":{"node-name":"libvirt-3-format"}}},
			{"qdev":"ua-b","node-name":"libvirt-2-format"}]`, extra, devicesAgree,
			repairs{
				merge: []astray{{id: "a", top: "libvirt-5-format", base: "libvirt-4-format"}},
				drop:  []string{"libvirt-5-format", "libvirt-5-storage"}, // once it is merged
			}, false,
		},
		{
			"a disk that libvirt does not know of", twoDisks,
			drivesAgree[:len(drivesAgree)-1] + `,{"qdev":"ua-d","node-name":"libvirt-5-format"},{"qdev":"floppy0"}]`, extra, devicesAgree,
			repairs{eject: []string{"ua-d"}, drop: []string{"libvirt-5-format", "libvirt-5-storage"}}, false,
		},
		{
			"something nobody has an answer to", twoDisks,
			`[{"qdev":"ua-a","node-name":"libvirt-7-format","backing":{"node-name":"libvirt-3-format"}}]`, nodesAgree, devicesAgree, repairs{}, true,
		},
		{
			"a disk that libvirt is changing",
			`<domain><devices><disk type='file' device='disk'><driver type='qcow2'/><source file='/sr/two.qcow2' index='4'/><mirror type='file' job='active-commit'/>
			<target dev='sda'/><alias name='ua-a'/></disk></devices></domain>`,
			`[{"qdev":"ua-a","node-name":"libvirt-3-format"}]`, nodesAgree, devicesAgree, repairs{}, false,
		},
		{
			"a NIC that libvirt does not know of", twoDisks, drivesAgree, nodesAgree,
			devicesAgree[:len(devicesAgree)-1] + `,{"name":"ua-m","type":"child<virtio-net-pci>"},{"name":"ua-channel","type":"child<virtserialport>"}]`,
			repairs{unplug: []string{"ua-m"}}, false,
		},
	} {
		var d libvirtxml.Domain
		var q inside
		for _, err := range []error{
			d.Unmarshal(c.x), json.Unmarshal([]byte(c.drives), &q.drives),
			json.Unmarshal([]byte(c.nodes), &q.nodes), json.Unmarshal([]byte(c.devices), &q.devices),
		} {
			if err != nil {
				t.Fatalf("%s: %v", c.name, err)
			}
		}
		got, err := diverged(d, q)
		if !reflect.DeepEqual(got, c.want) || (err != nil) != c.wrong {
			t.Errorf("%s: %+v, %v", c.name, got, err)
		}
	}
}

// TestLoose: what stands behind its NIC has one, whoever it is; what libvirt knows of is
// its own matter.
func TestLoose(t *testing.T) {
	const networks = "hub 7\r\n \\ hub7port0: hostua-hub: index=0,type=tap,fd=41\r\n" +
		"ua-a: index=0,type=nic,model=virtio-net-pci,macaddr=52:54:00:00:00:01\r\n \\ hostua-a: index=0,type=tap,fd=34\r\n" +
		"hostua-b: index=0,type=tap,fd=35\r\nhostua-c: index=0,type=tap,fd=36\r\nhostnet0: index=0,type=user\r\n"
	got := loose(Hardware{NICs: []NIC{{ID: "a"}, {ID: "c"}}}, networks)
	if !slices.Equal(got, []string{"ua-b"}) {
		t.Errorf("loose: %q", got)
	}
}
