// Package host is the host that benchmarks measure: that of `make dev`, with real
// libvirt, QEMU, qemu-img and hostd, fenced, below a directory of its own, and a session
// on its API.
package host

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"

	"cairn/ci/devhost"
	"cairn/toolstack/client"
)

// Login is how to log in to a host's API.
func Login(address string) client.Config {
	return client.Config{Addr: address, Username: "root", Password: "cairn", Originator: "bench"}
}

// Host is `make dev` with a session on its API and a connection to its libvirt.
type Host struct {
	Dir     string // the caller may write beside what the host does
	Address string // of the API
	Local   string // the host's own socket of the API
	API     *client.Client
	Libvirt *golibvirt.Libvirt
	cmd     *exec.Cmd
}

// Start builds the host with a go command, and returns when its API answers.
func Start(ctx context.Context, goCommand string) (*Host, error) {
	dir, err := os.MkdirTemp("", "bv") // short: sockets lie below it
	if err != nil {
		return nil, err
	}
	h := &Host{Dir: dir}
	if err := h.start(ctx, goCommand); err != nil {
		return nil, errors.Join(err, h.Close())
	}
	return h, nil
}

// Pid is the first of the host's processes; all others descend from it.
func (h *Host) Pid() int { return h.cmd.Process.Pid }

// Path is where something of the host's, such as /state/sr, lies outside of it.
func (h *Host) Path(inside string) string { return filepath.Join(h.Dir, "d", inside) }

func (h *Host) start(ctx context.Context, goCommand string) error {
	program := filepath.Join(h.Dir, "dev")
	build := exec.CommandContext(ctx, goCommand, "build", "-o", program, "cairn/ci/dev")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	h.cmd = exec.Command(program, "-listen", "127.0.0.1:0", "-dir", filepath.Join(h.Dir, "d"), "-bin", h.Dir, "-go", goCommand)
	h.cmd.Stderr = os.Stderr
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := h.cmd.Start(); err != nil {
		return err
	}
	if h.Address, err = ready(out); err != nil {
		return err
	}
	h.Local = h.Path(devhost.LocalSocket)
	if h.API, err = client.Dial(ctx, Login(h.Address)); err != nil {
		return err
	}
	socket := h.Path("run/libvirt/libvirt-sock")
	h.Libvirt = golibvirt.NewWithDialer(dialers.NewLocal(dialers.WithSocket(socket)))
	return h.Libvirt.Connect()
}

// ready reads the address from what make dev says.
func ready(out io.Reader) (string, error) {
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		_, rest, ok := strings.Cut(lines.Text(), "https://")
		if address, _, found := strings.Cut(rest, " "); ok && found && strings.HasPrefix(lines.Text(), "ready") {
			go func() { _, _ = io.Copy(io.Discard, out) }()
			return address, nil
		}
	}
	return "", errors.New("the host ended before it was ready")
}

// Close ends the host and forgets all of it.
func (h *Host) Close() error {
	if h.Libvirt != nil {
		_ = h.Libvirt.Disconnect()
	}
	if h.cmd != nil && h.cmd.Process != nil {
		_ = h.cmd.Process.Signal(syscall.SIGTERM)
		_ = h.cmd.Wait()
	}
	return os.RemoveAll(h.Dir)
}

// Ref is a call that answers a reference.
func (h *Host) Ref(ctx context.Context, method string, args ...any) (ref string, err error) {
	err = h.API.Call(ctx, method, &ref, args...)
	return ref, err
}

// First is a call that answers a set of references.
func (h *Host) First(ctx context.Context, method string, args ...any) (string, error) {
	var refs []string
	if err := h.API.Call(ctx, method, &refs, args...); err != nil {
		return "", err
	}
	if len(refs) == 0 {
		return "", fmt.Errorf("%s answers nothing", method)
	}
	return refs[0], nil
}

// Repository makes a repository of files.
func (h *Host) Repository(ctx context.Context, name string) (string, error) {
	own, err := h.First(ctx, "host.get_all")
	if err != nil {
		return "", err
	}
	config := map[string]string{"location": "/state/sr/" + name}
	return h.Ref(ctx, "SR.create", own, config, "0", name, "", "file", "user", false, map[string]string{})
}

// Disk makes an empty disk.
func (h *Host) Disk(ctx context.Context, sr string, size int64) (string, error) {
	return h.Ref(ctx, "VDI.create", map[string]any{
		"name_label": "bench", "name_description": "", "SR": sr, "virtual_size": fmt.Sprint(size), "type": "user",
		"sharable": false, "read_only": false, "other_config": map[string]string{},
	})
}
