package hostd

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn/init/config"
	"cairn/init/network"
)

func TestHosts(t *testing.T) {
	const head = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n"
	at := netip.MustParsePrefix("10.0.0.2/24")
	for _, c := range []struct {
		name, domain string
		address      netip.Prefix
		want         string
	}{
		{"cairn", "", netip.Prefix{}, "127.0.1.1 cairn\n"},
		{"cairn", "", at, "10.0.0.2 cairn\n"},
		{"cairn", "lab.example", at, "10.0.0.2 cairn.lab.example cairn\n"},
		{"cairn.dc1.example", "lab.example", at, "10.0.0.2 cairn.dc1.example cairn\n"},
	} {
		if got := hosts(c.name, c.domain, c.address); got != head+c.want {
			t.Errorf("%s in %q at %v: got %q", c.name, c.domain, c.address, got)
		}
	}
}

func TestTimeServers(t *testing.T) {
	lease := network.Status{NTP: []netip.Addr{netip.MustParseAddr("10.0.0.123")}}
	p := Paths{Etc: "/etc", Run: "/run/cairn"}
	find := func(doc config.Document, name string) string {
		for _, f := range etcFiles(p, doc, lease) {
			if filepath.Base(f.path) == name {
				return f.content
			}
		}
		t.Fatalf("no file %s", name)
		return ""
	}
	doc := config.Default()
	if got := find(doc, "cairn.sources"); got != "server 10.0.0.123 iburst\n" {
		t.Errorf("the lease's servers: got %q", got)
	}
	doc.NTP = []string{"time.example"}
	if got := find(doc, "cairn.sources"); got != "server time.example iburst\n" {
		t.Errorf("the document's servers: got %q", got)
	}
	if got := find(doc, "chrony.conf"); !strings.HasPrefix(got, "sourcedir /run/cairn/chrony\n") {
		t.Errorf("chrony.conf: got %q", got)
	}
}

func TestResolvConf(t *testing.T) {
	dns := []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1"), netip.MustParseAddr("10.0.0.3"), netip.MustParseAddr("10.0.0.4")}
	if got, want := resolvConf(dns, "lab.example"), "search lab.example\nnameserver 10.0.0.1\nnameserver fd00::1\nnameserver 10.0.0.3\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestWriteFilesSaysWhatChanged(t *testing.T) {
	dir := t.TempDir()
	files := []file{{dir + "/a", "1"}, {dir + "/sub/b", "2"}}
	changed, err := writeFiles(files)
	if err != nil || len(changed) != 2 {
		t.Fatalf("got %v, %v", changed, err)
	}
	files[1].content = "3"
	changed, err = writeFiles(files)
	if err != nil || len(changed) != 1 || changed[0] != dir+"/sub/b" {
		t.Errorf("got %v, %v", changed, err)
	}
}

// chronyd answers one command with the given status, and hands it over.
func chronyd(t *testing.T, status byte) (path string, command chan []byte) {
	t.Helper()
	dir, err := os.MkdirTemp("", "chrony")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	path, command = dir+"/chronyd.sock", make(chan []byte, 1)
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	must(t, err)
	t.Cleanup(func() { conn.Close() })
	go func() {
		var b [512]byte
		n, from, err := conn.ReadFromUnix(b[:])
		if err != nil {
			return
		}
		command <- b[:n]
		answer := make([]byte, chronyReplyLen)
		answer[0], answer[1], answer[5], answer[9] = chronyVersion, chronyReply, b[5], status
		conn.WriteToUnix(answer, from)
	}()
	return path, command
}

func TestReloadChrony(t *testing.T) {
	path, command := chronyd(t, 0)
	must(t, reloadChrony(path))
	if c := <-command; len(c) != 28 || c[0] != 6 || c[1] != 1 || c[5] != 70 {
		t.Errorf("sent %v", c)
	}
	path, _ = chronyd(t, 2)
	if err := reloadChrony(path); err == nil || !strings.Contains(err.Error(), "status 2") {
		t.Errorf("a refusal: got %v", err)
	}
	if err := reloadChrony(t.TempDir() + "/none"); err == nil {
		t.Error("nobody there, and no error")
	}
}

func TestHasKey(t *testing.T) {
	path := filepath.Join(t.TempDir(), "key")
	for caps, want := range map[string]bool{
		"10000000000000 0\n":             true,
		"10000000000000\n":               false, // bit 52 alone
		"0 0\n":                          false,
		"\n":                             false,
		"x y\n":                          false,
		"3 ffffffffffffffff 0 fffff 0\n": false,
		"f 10000000000000 0\n":           true,
		"402000000 3803078f800d001 feffffdfffefffff fffffffffffffffe\n": true, // a keyboard
	} {
		must(t, os.WriteFile(path, []byte(caps), 0o644))
		if got := hasKey(path, keyPower); got != want {
			t.Errorf("%q: got %v", caps, got)
		}
	}
	if hasKey(path+"none", keyPower) {
		t.Error("a missing file has the key")
	}
}

func TestSerialConsoles(t *testing.T) {
	dir := t.TempDir()
	must(t, os.MkdirAll(dir+"/class/tty/console", 0o755))
	must(t, os.WriteFile(dir+"/class/tty/console/active", []byte("tty0 ttyS0 hvc0 tty2\n"), 0o644))
	if got := strings.Join(serialConsoles(dir), " "); got != "ttyS0 hvc0" {
		t.Errorf("got %q", got)
	}
}

func TestKnows(t *testing.T) {
	const list = "nodev\tsysfs\n\text4\nnodev\ttmpfs\n"
	for name, want := range map[string]bool{"ext4": true, "tmpfs": true, "vfat": false, "ext": false, "nodev": false} {
		if got := knows(list, name); got != want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}

func TestTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	long := strings.Repeat(strings.Repeat("y", 1023)+"\n", 1500)
	for _, c := range []struct {
		name, content string
		n, lines      int
		truncated     bool
	}{
		{"empty", "", 10, 0, false},
		{"short", "a\nb\n", 10, 2, false},
		{"exact", "a\nb\n", 2, 2, false},
		{"without the last newline", "a\nb", 1, 1, true},
		{"larger than is read", long, 5000, 1023, true},
	} {
		must(t, os.WriteFile(path, []byte(c.content), 0o644))
		got, err := tail(path, c.n)
		if err != nil || len(got.Lines) != c.lines || got.Truncated != c.truncated {
			t.Errorf("%s: got %d lines, truncated %v, %v", c.name, len(got.Lines), got.Truncated, err)
		}
	}
}

func FuzzServiceName(f *testing.F) {
	f.Add("chronyd")
	f.Add("../x")
	f.Fuzz(func(t *testing.T, s string) {
		if serviceName(s) && filepath.Base(s+".log") != s+".log" {
			t.Fatalf("%q leaves the directory", s)
		}
	})
}
