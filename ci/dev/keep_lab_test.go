//go:build lab

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDevDaemonDies: a toolstackd that is killed is started again on the same socket,
// which is open in no daemon that does not serve it.
func TestDevDaemonDies(t *testing.T) {
	dir := scratch(t)
	d := launch(t, program(t), dir)
	socket := d.listener()
	for _, p := range d.descendants() {
		fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.pid))
		d.must(err)
		holds := slices.ContainsFunc(fds, func(fd string) bool {
			target, err := os.Readlink(fd)
			return err == nil && target == socket
		})
		if daemon := slices.Contains([]string{"hostd", "libvirtd", "virtlogd"}, p.name); holds && daemon || !holds && p.name == toolstackName {
			t.Errorf("%s has the socket: %t", p.name, holds)
		}
		unix.Close(p.fd)
	}
	old := d.process(toolstackName)
	d.must(unix.PidfdSendSignal(old.fd, syscall.SIGKILL, nil, 0))
	gone(t, []process{old})
	var hosts []string
	d.must(d.login().Call(t.Context(), "host.get_all", &hosts))
	if now := d.process(toolstackName); now.pid == old.pid || len(hosts) != 1 {
		t.Errorf("process %d was killed, %d answers for %d hosts", old.pid, now.pid, len(hosts))
	}
}

// listener is the socket of the API, as descriptors of processes show it.
func (d *instance) listener() string {
	d.Helper()
	_, port, err := net.SplitHostPort(d.addr)
	d.must(err)
	number, err := strconv.Atoi(port)
	d.must(err)
	table, err := os.ReadFile("/proc/net/tcp")
	d.must(err)
	for line := range strings.Lines(string(table)) {
		const listening = "0A"
		if f := strings.Fields(line); len(f) > 9 && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) && f[3] == listening {
			return "socket:[" + f[9] + "]"
		}
	}
	d.Fatalf("nobody listens on %s", d.addr)
	return ""
}
