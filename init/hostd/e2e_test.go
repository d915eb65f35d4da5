package hostd

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/init/network"
)

const staticDoc = `version: 1
hostname: cairn-1
management:
  mode: static
  address: 10.0.0.2/24
  gateway: 10.0.0.1
  dns: [10.0.0.53]
ntp: [time.example]
`

// TestGuestLogs lists guests by the files of theirs, and removes all of one guest's
// and nothing else.
func TestGuestLogs(t *testing.T) {
	const one, two = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
	l := newLab(t)
	l.smbios(staticDoc)
	for _, name := range []string{one + ".log", one + "-console.log", one + "-console.log.0", two + ".log", one + ".txt", "other.log"} {
		l.plant("log/libvirt/qemu/"+name, "text")
	}
	l.start()
	l.logged("hostd-ready")
	listed := func(want ...string) {
		t.Helper()
		got, err := l.client.GuestLogs(t.Context())
		must(t, err)
		if !slices.Equal(got, want) {
			t.Errorf("logs of %v, want %v", got, want)
		}
	}
	listed(one, two)
	for range 2 {
		must(t, l.client.DeleteGuestLogs(t.Context(), one))
	}
	listed(two)
	for _, name := range []string{one + ".txt", "other.log"} {
		l.read("log/libvirt/qemu/" + name)
	}
	for _, bad := range []string{"other", "..", one + ".log", "../chronyd"} {
		var refused *client.Error
		if err := l.client.DeleteGuestLogs(t.Context(), bad); !errors.As(err, &refused) || refused.Status < 400 || refused.Status >= 500 {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestFirstBoot(t *testing.T) {
	l := newLab(t)
	l.smbios(staticDoc)
	l.plant("log/chronyd.log", "one\ntwo\nthree\n")
	l.start()
	l.logged("config-loaded", "source=smbios", "hostname=cairn-1")
	l.logged("network-up", "if=eth0", "addr=10.0.0.2/24", "gateway=10.0.0.1")
	l.logged("INFO console banner", "url=https://10.0.0.2/", "host=cairn-1", `product="Cairn 0.1"`)
	ctx := context.Background()

	inv, err := l.client.Inventory(ctx)
	must(t, err)
	if inv.KVM.Usable || inv.KVM.Reason == "" || inv.CPU.Model != "AMD EPYC" || inv.Memory.Total == 0 || inv.State.Kind != "tmpfs" || inv.Hostname != "cairn-1" {
		t.Errorf("inventory %+v", inv)
	}
	net, err := l.client.Network(ctx)
	must(t, err)
	if net.Address != "10.0.0.2/24" || net.Interface != "eth0" || net.Gateway != "10.0.0.1" || !net.Link || net.Lease != nil || net.Error != "" {
		t.Errorf("network %+v", net)
	}
	version, err := l.client.Version(ctx)
	must(t, err)
	if version.API != 1 || version.Product != "0.1" || version.Kernel == "" {
		t.Errorf("version %+v", version)
	}
	logs, err := l.client.Logs(ctx, "chronyd", 2)
	must(t, err)
	if strings.Join(logs.Lines, ",") != "two,three" || !logs.Truncated || logs.Service != "chronyd" {
		t.Errorf("logs %+v", logs)
	}
	if got := l.read("state/config/cairn.yaml"); got != staticDoc {
		t.Errorf("stored %q", got)
	}
	for path, want := range map[string]string{
		"etc/hostname":             "cairn-1\n",
		"etc/hosts":                "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n10.0.0.2 cairn-1\n",
		"etc/resolv.conf":          "nameserver 10.0.0.53\n",
		"etc/chrony/chrony.conf":   "sourcedir " + l.dir + "/run/chrony\ndriftfile /var/lib/chrony/drift\nmakestep 1 3\nrtcsync\ncmdport 0\n",
		"run/chrony/cairn.sources": "server time.example iburst\n",
	} {
		if got := l.read(path); got != want {
			t.Errorf("%s is %q, want %q", path, got, want)
		}
	}
	must(t, l.client.Power(ctx, client.Reboot))
	l.logged("power-request", "action=reboot", "by=api")
	l.logged("system power", "action=reboot")
	l.terminate()
}

func TestWrongDocument(t *testing.T) {
	l := newLab(t)
	l.smbios("version: 1\nmanagement:\n  mode: static\n  address: 10.0.0.256/24\n")
	l.start()
	l.logged("ERROR hostd config-invalid", "source=smbios", "line=4", "10.0.0.256/24")
	l.logged("config-loaded", "source=default", "hostname=cairn")
	l.logged("system screen", "ERROR: configuration from smbios, line 4")
	got, err := l.client.Config(context.Background())
	must(t, err)
	if got.Source != "default" || got.Document.Management.Mode != config.ModeDHCP || len(got.Problems) != 1 || got.Problems[0].Line != 4 {
		t.Errorf("config %+v", got)
	}
	if _, err := os.Stat(l.dir + "/state/config/cairn.yaml"); err == nil {
		t.Error("a wrong document was stored")
	}
}

func TestPutConfig(t *testing.T) {
	l := newLab(t)
	l.smbios(staticDoc)
	l.start()
	l.logged("network-up")
	ctx := context.Background()

	_, err := l.client.PutConfig(ctx, []byte("version: 1\nhostnme: typo\n"))
	var e *client.Error
	if !errors.As(err, &e) || e.Status != http.StatusBadRequest || e.Code != client.CodeConfigInvalid || e.Line != 2 || !strings.Contains(e.Message, `line 2: unknown key "hostnme"`) {
		t.Errorf("wrong document: got %v", err)
	}
	if got := l.read("state/config/cairn.yaml"); got != staticDoc {
		t.Errorf("a wrong document changed the stored one to %q", got)
	}
	if _, err := l.client.PutConfig(ctx, bytes.Repeat([]byte("#"), maxBody+1)); !errors.As(err, &e) || e.Code != client.CodeTooLarge {
		t.Errorf("large document: got %v", err)
	}

	moved := strings.Replace(staticDoc, "10.0.0.2/24", "10.0.0.3/24", 1)
	got, err := l.client.PutConfig(ctx, []byte(moved))
	must(t, err)
	if got.Source != "state" || got.Text != moved || got.Document.Management.Address.String() != "10.0.0.3/24" {
		t.Errorf("answer %+v", got)
	}
	l.logged("network-up", "addr=10.0.0.3/24")
	l.logged("console banner", "url=https://10.0.0.3/")
	if got := l.read("state/config/cairn.yaml.good"); got != staticDoc {
		t.Errorf("last known good is %q", got)
	}

	l.kill()
	l.start()
	l.logged("config-loaded", "source=state", "hostname=cairn-1")
	net, err := l.client.Network(ctx)
	for err == nil && net.Address == "" { // the manager may not have looked yet
		net, err = l.client.Network(ctx)
	}
	must(t, err)
	if net.Address != "10.0.0.3/24" {
		t.Errorf("after a kill the address is %q", net.Address)
	}

	// The stored document is damaged from outside: the one before it is used.
	l.kill()
	l.plant("state/config/cairn.yaml", "version: 1\nhostname: [broken\n")
	l.start()
	l.logged("config-invalid", "source=state")
	l.logged("config-loaded", "source=state-last-known-good", "hostname=cairn-1")
}

func TestLateMedia(t *testing.T) {
	l := newLab(t)
	l.start()
	l.logged("config-loaded", "source=default")
	l.logged("watching-devices")
	l.plant("media.yaml", "version: 2\n")
	must(t, l.cmd.Process.Signal(syscall.SIGUSR1))
	l.logged("ERROR hostd config-invalid", "source=media", "line=1")
	l.plant("media.yaml", staticDoc)
	must(t, l.cmd.Process.Signal(syscall.SIGUSR1))
	l.logged("config-changed", "hostname=cairn-1")
	l.logged("network-up", "addr=10.0.0.2/24")

	// A document in force gives way to a newer one only.
	l.plant("media.yaml", strings.Replace(staticDoc, "cairn-1", "older", 1))
	must(t, l.cmd.Process.Signal(syscall.SIGUSR1))
	l.plant("media.yaml", strings.Replace(staticDoc, "hostname: cairn-1", "revision: 1\nhostname: newer", 1))
	must(t, l.cmd.Process.Signal(syscall.SIGUSR1))
	l.logged("config-changed", "hostname=newer")
	if got := l.read("state/config/cairn.yaml"); !strings.Contains(got, "hostname: newer") {
		t.Errorf("STATE has %q", got)
	}
}

func TestPowerButton(t *testing.T) {
	l := newLab(t)
	l.start()
	l.logged("watching-devices")
	// KEY_POWER is bit 116: bit 52 of the second word.
	l.plant("sys/class/input/event0/device/capabilities/key", "1 0\n")
	l.plant("sys/class/input/event1/device/capabilities/key", "10000000000000 0\n")
	must(t, os.MkdirAll(l.dir+"/dev/input", 0o755))
	for _, name := range []string{"event0", "event1"} {
		must(t, syscall.Mkfifo(l.dir+"/dev/input/"+name, 0o600))
	}
	keys, err := os.OpenFile(l.dir+"/dev/input/event1", os.O_RDWR, 0)
	must(t, err)
	defer keys.Close()
	must(t, l.cmd.Process.Signal(syscall.SIGUSR1))
	l.logged("power-button", "event1")
	_, err = keys.Write(bytes.Join([][]byte{keyEvent(30, pressed), keyEvent(keyPower, 0), keyEvent(keyPower, pressed)}, nil))
	must(t, err)
	l.logged("power-request", "action=poweroff", "by=button")
	l.logged("system power", "action=poweroff")
	l.terminate()
}

func TestKVM(t *testing.T) {
	l := newLab(t)
	l.plant("dev/kvm", "")
	l.start()
	inv, err := l.client.Inventory(context.Background())
	must(t, err)
	if inv.KVM.Usable || !inv.KVM.Pending {
		t.Errorf("before anybody wants it: KVM %+v", inv.KVM)
	}
	must(t, l.client.LoadKVM(context.Background()))
	l.logged("system module", "name=kvm_amd")
	l.logged("system admit", "device=kvm", "group=991") // before it is said, and in two seconds
	l.logged("system admit", "device=kvm", "group=991")
	l.logged("kvm-usable")
	inv, err = l.client.Inventory(context.Background())
	must(t, err)
	if !inv.KVM.Usable || inv.KVM.Pending || inv.KVM.Reason != "" {
		t.Errorf("KVM %+v", inv.KVM)
	}
	// The device alone is no proof.
	l.kill()
	l.plant("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu\n")
	l.start()
	must(t, l.client.LoadKVM(context.Background()))
	l.logged("WARN hostd kvm-missing", "neither vmx nor svm")
}

func TestKernelLogAndTime(t *testing.T) {
	l := newLab(t)
	l.plant("kernel-log", "<6>[    0.000000] Linux \xff\n")
	l.start()
	ctx := context.Background()
	const want = "<6>[    0.000000] Linux ?\n"
	for n, ask := range []func(context.Context) (client.KernelLog, error){l.client.KernelLog, l.client.ClearKernelLog} {
		if got, err := ask(ctx); err != nil || got.Text != want {
			t.Errorf("ask %d: got %q, %v", n, got.Text, err)
		}
	}
	if got, err := l.client.KernelLog(ctx); err != nil || got.Text != "" {
		t.Errorf("after the log was emptied: got %q, %v", got.Text, err)
	}
	if got, err := l.client.Time(ctx); err != nil || !got.Synchronized {
		t.Errorf("time: got %+v, %v", got, err)
	}
}

// TestOutOfMemory: the kernel's log says which guests were killed, and when.
func TestOutOfMemory(t *testing.T) {
	l := newLab(t)
	l.start()
	if got, err := l.client.OutOfMemory(t.Context()); err == nil {
		t.Errorf("without a log: %+v", got)
	}
	l.plant("kernel-log", "<6>[    0.000001] oom-kill:constraint=X,task_memcg=/machine/qemu-1-"+
		"0f5d9a6e-5c3b-4c6e-9a57-3a3f0a1d2b4c.libvirt-qemu,task=qemu-system-x86,pid=77,uid=1\n")
	before := network.Uptime()
	got, err := l.client.OutOfMemory(t.Context())
	must(t, err)
	if len(got.Kills) != 1 || got.Kills[0].Guest != "0f5d9a6e-5c3b-4c6e-9a57-3a3f0a1d2b4c" || got.Kills[0].PID != 77 ||
		got.Kills[0].Ago < before-time.Microsecond || got.Kills[0].Ago > network.Uptime() {
		t.Errorf("got %+v", got)
	}
}

// TestTimeServersChange: the time daemon hears of servers while it runs.
func TestTimeServersChange(t *testing.T) {
	l := newLab(t)
	l.smbios(staticDoc)
	l.start()
	l.logged("network-up")
	_, err := l.client.PutConfig(context.Background(), []byte(strings.Replace(staticDoc, "time.example", "other.example", 1)))
	must(t, err)
	l.logged("system reload-time")
	if got := l.read("run/chrony/cairn.sources"); got != "server other.example iburst\n" {
		t.Errorf("sources are %q", got)
	}
}

func TestWatchdog(t *testing.T) {
	l := newLab(t)
	l.env = []string{"WATCHDOG_USEC=40000"}
	l.start()
	for range 3 {
		l.notified("WATCHDOG=1")
	}
}

func TestBadRequests(t *testing.T) {
	l := newLab(t)
	l.start()
	ctx := context.Background()
	unix := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", l.dir+"/hostd.sock")
	}}}
	defer unix.CloseIdleConnections()
	for _, c := range []struct {
		method, path, body string
		status             int
		code               string
	}{
		{"GET", "/v2/version", "", 404, "NOT_FOUND"},
		{"DELETE", "/v1/config", "", 404, "NOT_FOUND"},
		{"POST", "/v1/power", `{"action":"explode"}`, 400, "BAD_REQUEST"},
		{"POST", "/v1/power", `{`, 400, "BAD_REQUEST"},
		{"GET", "/v1/logs", "", 400, "BAD_REQUEST"},
		{"GET", "/v1/logs?service=../../etc/shadow", "", 400, "BAD_REQUEST"},
		{"GET", "/v1/logs?service=none", "", 404, "NOT_FOUND"},
		{"GET", "/v1/logs?service=a&lines=0", "", 400, "BAD_REQUEST"},
		{"GET", "/v1/logs?service=a&lines=99999999", "", 400, "BAD_REQUEST"},
		{"PUT", "/v1/config", "", 400, "CONFIG_INVALID"},
	} {
		req, err := http.NewRequestWithContext(ctx, c.method, "http://hostd"+c.path, strings.NewReader(c.body))
		must(t, err)
		resp, err := unix.Do(req)
		must(t, err)
		var b bytes.Buffer
		_, err = b.ReadFrom(resp.Body)
		must(t, errors.Join(err, resp.Body.Close()))
		if resp.StatusCode != c.status || !strings.Contains(b.String(), `"code":"`+c.code+`"`) {
			t.Errorf("%s %s: got %d %s", c.method, c.path, resp.StatusCode, b.String())
		}
	}
}

func TestNoServer(t *testing.T) {
	if _, err := client.New(t.TempDir() + "/none").Version(context.Background()); err == nil {
		t.Error("an answer without a server")
	}
}
