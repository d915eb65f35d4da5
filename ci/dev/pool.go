package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"

	"cairn/ci/devhost"
)

// pool is toolstackd with simulated hosts: it needs neither root nor the tree.
type pool struct {
	cmd  *exec.Cmd
	gone chan struct{}
}

func startPool(ctx context.Context, cfg config, l *net.TCPListener, log io.Writer) (host, error) {
	program, err := build(ctx, cfg, "./toolstack/cmd/toolstackd", "dev-toolstackd-sim", "-tags", "sim")
	if err != nil {
		return nil, err
	}
	// A pool of another size is another pool.
	state := filepath.Join(cfg.Dir, fmt.Sprintf("sim-%d-%d", cfg.SimHosts, cfg.SimVMs))
	if err := os.MkdirAll(state, 0o700); err != nil {
		return nil, err
	}
	socket, err := l.File()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	p := &pool{gone: make(chan struct{})}
	p.cmd = devhost.Command(socket, "https", program, "-state", state,
		"-sim-hosts", strconv.Itoa(cfg.SimHosts), "-sim-vms", strconv.Itoa(cfg.SimVMs), "-sim-password", password)
	p.cmd.Stdout, p.cmd.Stderr = log, log
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(p.gone)
		_ = p.cmd.Wait()
	}()
	return p, nil
}

// Gone implements host.
func (p *pool) Gone() <-chan struct{} { return p.gone }

// Close implements host.
func (p *pool) Close() error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // gone already is fine
	<-p.gone
	return nil
}
