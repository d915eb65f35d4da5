package main

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

	"cairn/toolstack/client"
)

// host is `make dev` with a session on its API and a connection to its libvirt.
type host struct {
	dir string
	cmd *exec.Cmd
	api *client.Client
	lv  *golibvirt.Libvirt
}

func startHost(ctx context.Context, cfg config) (*host, error) {
	dir, err := os.MkdirTemp("", "bv") // short: sockets lie below it
	if err != nil {
		return nil, err
	}
	h := &host{dir: dir}
	if err := h.start(ctx, cfg); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *host) start(ctx context.Context, cfg config) error {
	program := filepath.Join(h.dir, "dev")
	build := exec.CommandContext(ctx, cfg.Go, "build", "-o", program, "cairn/ci/dev")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build: %w: %s", err, out)
	}
	h.cmd = exec.Command(program, "-listen", "127.0.0.1:0", "-dir", filepath.Join(h.dir, "d"), "-bin", h.dir, "-go", cfg.Go)
	h.cmd.Stderr = os.Stderr
	h.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := h.cmd.Start(); err != nil {
		return err
	}
	address, err := ready(out)
	if err != nil {
		return err
	}
	if h.api, err = client.Dial(ctx, client.Config{Addr: address, Username: "root", Password: "cairn", Originator: "bench"}); err != nil {
		return err
	}
	socket := filepath.Join(h.dir, "d/run/libvirt/libvirt-sock")
	h.lv = golibvirt.NewWithDialer(dialers.NewLocal(dialers.WithSocket(socket)))
	return h.lv.Connect()
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

func (h *host) close() error {
	if h.lv != nil {
		_ = h.lv.Disconnect()
	}
	if h.cmd != nil && h.cmd.Process != nil {
		_ = h.cmd.Process.Signal(syscall.SIGTERM)
		_ = h.cmd.Wait()
	}
	return os.RemoveAll(h.dir)
}

// ref is a call that answers a reference.
func (h *host) ref(ctx context.Context, method string, args ...any) (ref string, err error) {
	err = h.api.Call(ctx, method, &ref, args...)
	return ref, err
}

// first is a call that answers a set of references.
func (h *host) first(ctx context.Context, method string, args ...any) (string, error) {
	var refs []string
	if err := h.api.Call(ctx, method, &refs, args...); err != nil {
		return "", err
	}
	if len(refs) == 0 {
		return "", fmt.Errorf("%s answers nothing", method)
	}
	return refs[0], nil
}
