package console

import (
	"fmt"
	"strings"
	"testing"

	"cairn/golden"
)

func TestText(t *testing.T) {
	ready := Info{Product: "Cairn 0.1", Hostname: "cairn-1", Interface: "eth0", Address: "10.0.0.2", Mode: "dhcp", Login: true}
	with := func(change func(*Info)) Info { i := ready; change(&i); return i }
	var b strings.Builder
	for _, c := range []struct {
		name string
		info Info
	}{
		{"ready", ready},
		{"no interface", with(func(i *Info) { i.Interface, i.Address = "", "" })},
		{"no address", with(func(i *Info) { i.Address = "" })},
		{"no password", with(func(i *Info) { i.Login = false })},
		{"no KVM", with(func(i *Info) {
			i.NoKVM = "the processor offers no hardware virtualization (neither vmx nor svm); it may be disabled in the firmware"
		})},
		{"no KVM, emulation allowed", with(func(i *Info) { i.NoKVM, i.Emulation = "no vmx or svm", true })},
		{"wrong document", with(func(i *Info) {
			i.Problems = []string{`configuration from smbios, line 4: management.address "10.0.0.256/24" is not an IPv4 address with prefix length, such as 10.0.0.2/24`, "nothing is kept over a reboot: the root is not on a disk"}
		})},
		{"escape sequences from outside", with(func(i *Info) { i.Hostname = "a\x1b[2J\nb\x9bc" })},
		{"a very long word", with(func(i *Info) { i.Hostname = strings.Repeat("x", 100) })},
	} {
		text := Text(c.info)
		fmt.Fprintf(&b, "%s\n%s", c.name, text)
		for line := range strings.Lines(text) {
			if n := len([]rune(strings.TrimSuffix(line, "\n"))); n > width && strings.Contains(strings.TrimSpace(line), " ") && c.name != "a very long word" {
				t.Errorf("%s: a line has %d columns: %q", c.name, n, line)
			}
		}
	}
	golden.Equal(t, "testdata/text.golden", b.String())
}

func TestScreen(t *testing.T) {
	s := Screen(Info{Product: "Cairn", Hostname: "h"})
	if !strings.HasPrefix(s, clear) || strings.Count(s, "\r\n") != strings.Count(s, "\n") {
		t.Errorf("got %q", s)
	}
}
