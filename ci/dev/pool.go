package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"

	"cairn/ci/devhost"
)

// pool is toolstackd with simulated hosts: it needs neither root nor the tree.
type pool struct {
	command func() *exec.Cmd
	socket  *os.File // kept for the next toolstackd
	deaths  chan death

	mu    sync.Mutex
	cmd   *exec.Cmd
	ended chan struct{} // closed at the end of cmd
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
	p := &pool{socket: socket, deaths: make(chan death, 1)}
	p.command = func() *exec.Cmd {
		cmd := devhost.Command(socket, "https", program, "-state", state,
			"-sim-hosts", strconv.Itoa(cfg.SimHosts), "-sim-vms", strconv.Itoa(cfg.SimVMs), "-sim-password", password)
		cmd.Stdout, cmd.Stderr = log, log
		return cmd
	}
	if err := p.Restart(toolstackName); err != nil {
		return nil, errors.Join(err, socket.Close())
	}
	return p, nil
}

// Restart implements host. There is only one daemon.
func (p *pool) Restart(string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	cmd, ended := p.command(), make(chan struct{})
	if err := cmd.Start(); err != nil {
		return err
	}
	p.cmd, p.ended = cmd, ended
	go func() {
		defer close(ended)
		_ = cmd.Wait()
		p.deaths <- death{toolstackName, cmd.ProcessState.String()} // one at a time, as it is started by who read the last
	}()
	return nil
}

// Deaths implements host.
func (p *pool) Deaths() <-chan death { return p.deaths }

// Gone implements host: a pool lives until it is closed.
func (p *pool) Gone() <-chan struct{} { return nil }

// Close implements host.
func (p *pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // gone already is fine
	<-p.ended
	return p.socket.Close()
}
