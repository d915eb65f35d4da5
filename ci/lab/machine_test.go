package lab

import (
	"strings"
	"testing"

	"cairn/golden"
)

func TestMachineArgs(t *testing.T) {
	management := []NIC{{Forwards: []Forward{{Port: HTTPS}}}}
	cases := map[string]machine{
		"ovmf": {
			Name: "h1", MemoryMiB: 2048, CPUs: 2, Watchdog: true, Code: "code.fd", Vars: "vars.fd",
			Disks: []Disk{{Path: "a.qcow2", Serial: "root"}}, NICs: management, SMBIOS: "config",
			QMP: 3, Serial: 4, Second: -1,
		},
		"direct": {
			Name: "h2", KVM: true, MemoryMiB: 1024, CPUs: 1, NoReboot: true,
			Kernel: "vmlinuz", Initrd: "initrd", Words: "quiet cairn.debug=ttyS1",
			Disks: []Disk{{Path: "a,b.qcow2"}, {Path: "n.raw", Format: "raw", Bus: "nvme"}, {Path: "s.qcow2", Bus: "scsi"}, {Path: "c.iso", Format: "raw", Bus: "cd"}},
			NICs:  []NIC{{MAC: "52:54:00:00:00:01", Forwards: []Forward{{8443, 443}, {0, 22}}}, {Isolated: true}},
			QMP:   3, Serial: 4, Second: 5,
		},
		"nokvm": {Name: "h3", NoNested: true, MemoryMiB: 1024, CPUs: 1, Kernel: "k", Initrd: "i", QMP: 3, Serial: 4, Second: -1},
	}
	for name, m := range cases {
		got := strings.ReplaceAll(strings.Join(m.args(), " "), " -", "\n-") + "\n"
		golden.Equal(t, "testdata/"+name+".txt", got)
	}
}

func TestParseForwards(t *testing.T) {
	text := "Hub -1 (n0):\r\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\r\n" +
		"  TCP[HOST_FORWARD]   3       127.0.0.1 46587       10.0.2.15   443     0     0\r\n" +
		"  TCP[ESTABLISHED]    9       127.0.0.1 50000       10.0.2.15   443     0     0\r\n" +
		"  TCP[HOST_FORWARD]   4       127.0.0.1 2222       10.0.2.15    22     0     0\r\n"
	got := parseForwards(text)
	if len(got) != 2 || got[443] != "127.0.0.1:46587" || got[22] != "127.0.0.1:2222" {
		t.Errorf("got %v", got)
	}
}

func TestVirtualizes(t *testing.T) {
	for text, want := range map[string]bool{
		"flags\t\t: fpu vmx sse\n":                        true,
		"flags\t\t: fpu svm\n":                            true,
		"flags\t\t: fpu svm_lock avmx\nmodel name: vmx\n": false,
		"vmx flags\t: vnmi\n":                             false,
	} {
		if got := virtualizes(text); got != want {
			t.Errorf("virtualizes(%q) = %v", text, got)
		}
	}
}

func TestRecent(t *testing.T) {
	for banner, want := range map[string]bool{
		"QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)": false,
		"QEMU emulator version 8.1.9":                        false,
		"QEMU emulator version 8.2.2 (Debian 1:8.2.2)":       true,
		"QEMU emulator version 10.0.13":                      true,
		"no such program":                                    false,
	} {
		if got := recent(banner); got != want {
			t.Errorf("recent(%q) = %v", banner, got)
		}
	}
}
