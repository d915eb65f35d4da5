package main

import (
	"context"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"cairn/toolstack/xe"
)

// commandLine runs xe as a user does: over TLS, from a home of its own.
type commandLine struct {
	t    *testing.T
	env  map[string]string
	open xe.API // a session for all commands; nil: each logs in

	socket string // of the host it runs on
}

func newCommandLine(t *testing.T, address string) *commandLine {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return &commandLine{t: t, env: map[string]string{
		"HOME": t.TempDir(), "XE_EXTRA_ARGS": "server=" + host + ",port=" + port + ",username=root,password=" + password,
	}}
}

func (c *commandLine) try(args ...string) (status int, out, errOut string) {
	var stdout, stderr strings.Builder
	cfg := xe.Config{
		Args: args, Stdin: strings.NewReader(""), Stdout: &stdout, Stderr: &stderr,
		Getenv: func(name string) string { return c.env[name] }, Socket: c.socket,
	}
	if c.open != nil {
		cfg.Connect = func(context.Context, xe.Settings, bool) (xe.API, func(), error) { return c.open, func() {}, nil }
	}
	status = xe.Run(c.t.Context(), cfg)
	return status, stdout.String(), stderr.String()
}

// xe runs a command that must work, and returns what it printed.
func (c *commandLine) xe(args ...string) string {
	c.t.Helper()
	status, out, errOut := c.try(args...)
	if status != 0 {
		c.t.Fatalf("xe %s: %s", strings.Join(args, " "), errOut)
	}
	return strings.TrimSuffix(out, "\n")
}

func (c *commandLine) want(got, want string) {
	c.t.Helper()
	if got != want {
		c.t.Errorf("got  %q\nwant %q", got, want)
	}
}

// TestCommandLine is a user's session with xe, one command of each group.
func TestCommandLine(t *testing.T) {
	d := newInstance(t, "memory")
	c := newCommandLine(t, d.address())

	vm := c.xe("vm-install", "template=Cairn demo guest", "new-name-label=web")
	c.want(c.xe("vm-list", "name-label=web", "--minimal"), vm)
	c.xe("vm-start", "vm=web")
	c.want(c.xe("vm-param-get", "uuid="+vm, "param-name=power-state"), "running")
	c.xe("vm-pause", "vm=web")
	c.want(c.xe("vm-list", "power-state=paused", "--minimal"), vm)
	c.xe("vm-unpause", "uuid="+vm)
	if _, _, errOut := c.try("vm-start", "vm=web"); !strings.Contains(errOut, "expected halted, found running") ||
		!strings.Contains(errOut, "Error code: VM_BAD_POWER_STATE\nError parameters: "+vm+" (web), ") {
		t.Errorf("a VM that runs is started: %s", errOut)
	}
	c.xe("vm-shutdown", "vm=web", "--force")
	copied := c.xe("vm-clone", "vm=web", "new-name-label=twin", "new-name-description=second")
	c.want(c.xe("vm-list", "uuid="+copied, "params=name-label,name-description"),
		"name-label ( RW)          : twin\n    name-description ( RW): second\n\n")

	c.xe("vm-param-set", "uuid="+vm, "other-config:a=1", "VCPUs-at-startup=1", "memory-static-max=512MiB", "actions-after-crash=destroy")
	c.xe("vm-param-set", "uuid="+vm, "other-config:a=2")
	c.want(c.xe("vm-param-get", "uuid="+vm, "param-name=other-config", "param-key=a"), "2")
	c.want(c.xe("vm-list", "other-config:a=2", "params=name-label", "--minimal"), "web")
	c.want(c.xe("vm-param-get", "uuid="+vm, "param-name=actions-after-crash"), "Destroy")
	c.want(c.xe("vm-param-get", "uuid="+vm, "param-name=memory-static-max"), "536870912")
	c.xe("vm-param-add", "uuid="+vm, "param-name=tags", "param-key=blue")
	c.want(c.xe("vm-list", "tags:contains=blue", "params=tags", "--minimal"), "blue")
	c.xe("vm-param-remove", "uuid="+vm, "param-name=tags", "param-key=blue")
	c.xe("vm-param-clear", "uuid="+vm, "param-name=other-config")
	c.want(c.xe("vm-param-get", "uuid="+vm, "param-name=other-config"), "")

	pool := c.xe("pool-list", "--minimal")
	c.xe("pool-param-set", "uuid="+pool, "name-label=Home", "other-config:x=y")
	c.want(c.xe("pool-list", "params=name-label", "--minimal"), "Home")
	host := c.xe("host-list", "--minimal")
	c.xe("host-disable")
	c.want(c.xe("host-param-get", "uuid="+host, "param-name=enabled"), "false")
	c.xe("host-enable", "host="+host)
	c.want(c.xe("event-wait", "class=host", "enabled=true"), "")
	c.want(c.xe("event-wait", "class=vm", "uuid="+vm, "power-state=/=running"), "")

	secret := c.xe("secret-create", "value=s3cret")
	c.want(c.xe("secret-param-get", "uuid="+secret, "param-name=value"), "s3cret")
	c.xe("secret-destroy", "uuid="+secret)
	c.xe("message-create", "name=HELLO", "priority=3", "body=text", "vm-uuid="+vm)
	message := c.xe("message-list", "name=HELLO", "--minimal")
	c.want(c.xe("message-param-get", "uuid="+message, "param-name=body"), "text")
	c.xe("message-destroy", "uuid="+message)
	c.want(c.xe("message-list", "name=HELLO", "--minimal"), "")
	if roles := c.xe("role-list", "params=name", "--minimal"); !strings.Contains(roles, "pool-admin") {
		t.Errorf("roles: %s", roles)
	}
	c.want(c.xe("session-subject-identifier-list"), "")
	c.want(c.xe("host-is-in-emergency-mode"), "false") // by a session of this one host
	if log := c.xe("audit-log-get", "filename=-"); !strings.Contains(log, "VM.start") {
		t.Errorf("the audit log does not tell of the start: %s", log)
	}
	if offers := c.xe("__complete", "vm-param-get", "uuid="+vm[:9]); offers != "uuid="+vm {
		t.Errorf("completion offers %q", offers)
	}
	c.xe("vm-uninstall", "vm=twin", "--force")
	c.want(c.xe("vm-list", "name-label=twin", "--minimal"), "")
	d.stop()
}

// TestEveryClassIsListed: the generic commands answer for every class, with all
// fields, and name the object they are asked about.
func TestEveryClassIsListed(t *testing.T) {
	d := newInstance(t, "memory")
	address := d.address()
	c := newCommandLine(t, address)
	c.open = d.login(address)
	all := strings.Split(c.xe("help", "--all", "--minimal"), ",")
	lists, records := 0, 0
	for _, name := range all {
		class, ok := strings.CutSuffix(name, "-param-list")
		if !ok {
			continue
		}
		lists++
		c.xe(class+"-list", "params=all")
		for _, uuid := range strings.FieldsFunc(c.xe(class+"-list", "params=uuid", "--minimal"), func(r rune) bool { return r == ',' }) {
			records++
			if got := c.xe(name, "uuid="+uuid); !strings.Contains(got, "uuid ( RO)") || strings.Contains(got, "<expensive") {
				t.Errorf("%s: %s", name, got)
			}
			c.want(c.xe(class+"-param-get", "uuid="+uuid, "param-name=uuid"), uuid)
		}
	}
	if lists != 55 || records < 10 {
		t.Errorf("%d classes, %d records", lists, records)
	}
	d.stop()
}

// Least numbers of explicit commands whose messages have behaviour. They may
// only grow.
const leastRunnable = 120

// TestEveryCommandIsThereOrSaysNot runs each explicit command against the whole
// toolstack: it works, or the host refuses it for a reason, or it is refused as
// not available by the name of what is missing. Nothing else may happen.
func TestEveryCommandIsThereOrSaysNot(t *testing.T) {
	d := newInstance(t, "memory")
	address := d.address()
	c := newCommandLine(t, address)
	c.open = d.login(address)
	vm := c.xe("vm-install", "template=Cairn demo guest", "new-name-label=x")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	objects := map[string]string{
		"VM": vm, "host": c.xe("host-list", "--minimal"), "pool": c.xe("pool-list", "--minimal"),
		"template": c.xe("template-list", "name-label=Cairn demo guest", "--minimal"),
		"secret":   c.xe("secret-create", "value=v"), "role": strings.Split(c.xe("role-list", "--minimal"), ",")[0],
	}
	verdicts := map[string][]string{}
	samples := xe.Samples(objects, file)
	for _, s := range samples {
		if destructive[s[0]] {
			verdicts[works] = append(verdicts[works], s[0])
			continue
		}
		status, _, errOut := c.try(s...)
		gone := strings.Contains(errOut, "UUID_INVALID") || strings.Contains(errOut, "no matching objects")
		if gone && strings.Contains(strings.Join(s, " "), vm) { // an earlier command removed it
			old := vm
			vm = c.xe("vm-install", "template=Cairn demo guest", "new-name-label=x")
			for _, later := range samples {
				for i := range later {
					later[i] = strings.ReplaceAll(later[i], old, vm)
				}
			}
			status, _, errOut = c.try(s...)
		}
		verdict := judge(status, errOut)
		verdicts[verdict] = append(verdicts[verdict], s[0])
		if verdict == "broken" {
			t.Errorf("xe %s: %s", strings.Join(s, " "), errOut)
		}
	}
	for _, v := range slices.Sorted(maps.Keys(verdicts)) {
		t.Logf("%s: %d: %s", v, len(verdicts[v]), strings.Join(verdicts[v], " "))
	}
	if n := len(verdicts[works]) + len(verdicts[refuses]); n < leastRunnable {
		t.Errorf("%d commands have behaviour, were %d: %v %v", n, leastRunnable, verdicts[works], verdicts[refuses])
	}
	d.stop()
}

// destructive commands would end the daemon or the login of this test. They
// have tests of their own.
var destructive = map[string]bool{
	"host-shutdown": true, "host-reboot": true, "host-shutdown-agent": true, "user-password-change": true,
}

// Verdicts on commands that have behaviour.
const (
	works   = "works"
	refuses = "refuses, for a reason of the object's state"
)

func judge(status int, errOut string) string {
	switch {
	case status == 0:
		return works
	case strings.Contains(errOut, "Error code: NOT_IMPLEMENTED\nError parameters: "), strings.Contains(errOut, "Error code: MESSAGE_REMOVED\n"):
		return "not there, by name"
	case strings.Contains(errOut, "Error code: UUID_INVALID"), strings.Contains(errOut, "no matching objects"):
		return "no object of the class to try it on"
	case strings.Contains(errOut, "Error code: INTERNAL_ERROR"), !strings.Contains(errOut, "Error code: ") && !local(errOut):
		return "broken"
	}
	return refuses
}

// local reports whether xe itself had a reason.
func local(errOut string) bool {
	for _, reason := range []string{"has no CD drive", "has no default SR", "no console now"} {
		if strings.Contains(errOut, reason) {
			return true
		}
	}
	return false
}
