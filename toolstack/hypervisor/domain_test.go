package hypervisor

import (
	"strings"
	"testing"

	"cairn/golden"

	"libvirt.org/go/libvirtxml"
)

func testSpec() Spec {
	return Spec{
		UUID: "0f5e2b1c-7c3a-4d11-9d3e-2f6a1b0c9d8e", Title: "web 1", Kind: Accelerated, Machine: DefaultMachine,
		MemoryBytes: 256 << 20, VCPUs: 1, VCPUsMax: 1,
		Boot: DirectBoot{
			Kernel: "/usr/share/cairn/guest/vmlinuz", Initrd: "/usr/share/cairn/guest/initrd.img",
			Args: "console=ttyS0 quiet",
		},
	}
}

func TestDomainXML(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Spec, *Config)
	}{
		{"kvm", func(*Spec, *Config) {}},
		{"emulated", func(s *Spec, c *Config) { s.Kind = Emulated; c.ConsoleOwner = "" }},
		{"hotplug-vcpus", func(s *Spec, _ *Config) { s.VCPUs, s.VCPUsMax = 2, 8 }},
		{"reboot-destroys", func(s *Spec, _ *Config) { s.RebootDestroys = true }},
		{"hostile-names", func(s *Spec, _ *Config) {
			s.Title = "</title><on_crash>coredump-restart</on_crash>\n\x00\x1b[2J" + strings.Repeat("x", 200)
			s.Boot.Args = `quiet</cmdline><init>"evil"&`
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s, c := testSpec(), DefaultConfig()
			tt.edit(&s, &c)
			got, err := c.domainXML(s)
			if err != nil {
				t.Fatal(err)
			}
			golden.Equal(t, "testdata/"+tt.name+".xml", got)
		})
	}
}

// TestDomainXMLEscapes reads the XML back: whatever a user writes into a name or
// a command line stays text.
func TestDomainXMLEscapes(t *testing.T) {
	s := testSpec()
	s.Boot.Args = `a</cmdline><init>/bin/sh</init><cmdline> & "b"`
	s.Title = `<evil/>`
	x, err := DefaultConfig().domainXML(s)
	if err != nil {
		t.Fatal(err)
	}
	var d libvirtxml.Domain
	if err := d.Unmarshal(x); err != nil {
		t.Fatal(err)
	}
	if d.OS.Cmdline != s.Boot.Args || d.OS.Init != "" || d.Title != s.Title {
		t.Errorf("read back cmdline %q init %q title %q", d.OS.Cmdline, d.OS.Init, d.Title)
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		name string
		edit func(*Spec)
		want string
	}{
		{"good", func(*Spec) {}, ""},
		{"uuid", func(s *Spec) { s.UUID = "../../etc/passwd" }, "uuid"},
		{"braced uuid", func(s *Spec) { s.UUID = "{" + s.UUID + "}" }, "uuid"},
		{"kind", func(s *Spec) { s.Kind = "lxc" }, "kind"},
		{"machine", func(s *Spec) { s.Machine = "q35" }, "machine"},
		{"no memory", func(s *Spec) { s.MemoryBytes = 0 }, "memory"},
		{"negative memory", func(s *Spec) { s.MemoryBytes = -1 << 40 }, "memory"},
		{"no vcpus", func(s *Spec) { s.VCPUs = 0 }, "vcpus"},
		{"more than max", func(s *Spec) { s.VCPUs = 3 }, "vcpus"},
		{"too many", func(s *Spec) { s.VCPUsMax = 1000 }, "vcpus"},
		{"relative kernel", func(s *Spec) { s.Boot.Kernel = "vmlinuz" }, "kernel"},
		{"relative initrd", func(s *Spec) { s.Boot.Initrd = "initrd" }, "initrd"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := testSpec()
			tt.edit(&s)
			err := s.Check()
			if (err == nil) != (tt.want == "") || (err != nil && !strings.Contains(err.Error(), tt.want)) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}
