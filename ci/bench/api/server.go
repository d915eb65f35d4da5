package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cairn/ci/devhost"
)

const password = "cairn"

// build builds toolstackd with the simulator in it.
func build(ctx context.Context, cfg config) (string, error) {
	f, err := os.CreateTemp("", "bench-toolstackd-")
	if err != nil {
		return "", err
	}
	f.Close()
	cmd := exec.CommandContext(ctx, cfg.Go, "build", "-trimpath", "-tags", "sim", "-o", f.Name(), "cairn/toolstack/cmd/toolstackd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build: %w: %s", err, out)
	}
	return f.Name(), nil
}

// server is one toolstackd with its simulated pool.
type server struct {
	cmd         *exec.Cmd
	addr, debug string
	state       string
}

// startLimit bounds filling the pool on a slow machine.
const startLimit = 5 * time.Minute

func startServer(ctx context.Context, cfg config, program string, vms int) (*server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	defer l.Close()
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	s := &server{addr: l.Addr().String()}
	if s.state, err = os.MkdirTemp("", "bench-api-"); err != nil {
		return nil, err
	}
	args := []string{program, "-state", s.state, "-sim-hosts", strconv.Itoa(hosts), "-sim-vms", strconv.Itoa(vms), "-sim-password", password}
	if cfg.Profile != "" {
		if s.debug, err = freeAddress(); err != nil {
			return nil, err
		}
		args = append(args, "-debug", s.debug)
	}
	s.cmd = devhost.Command(socket, "https", args...)
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	s.cmd.Stderr = os.Stderr
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	if err := await(ctx, out); err != nil {
		s.close()
		return nil, err
	}
	return s, nil
}

func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// await reads the server's log until it says that it is ready, and goes on
// reading, so that it is never held up by it.
func await(ctx context.Context, log io.Reader) error {
	ready := make(chan error, 1)
	go func() {
		var tail []string
		lines := bufio.NewScanner(log)
		for lines.Scan() {
			if strings.Contains(lines.Text(), " api-ready ") {
				ready <- nil
			}
			tail = append(tail, lines.Text())
			tail = tail[max(0, len(tail)-10):]
		}
		select {
		case ready <- fmt.Errorf("toolstackd ended:\n%s", strings.Join(tail, "\n")):
		default:
		}
	}()
	select {
	case err := <-ready:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(startLimit):
		return errors.New("toolstackd does not get ready")
	}
}

func (s *server) pid() int { return s.cmd.Process.Pid }

func (s *server) close() {
	_ = s.cmd.Process.Signal(syscall.SIGTERM)
	_ = s.cmd.Wait()
	_ = os.RemoveAll(s.state)
}

// profile records what the server's processors do until stop is called.
func (s *server) profile(dir, name string) (stop func()) {
	if dir == "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := s.saveProfile(ctx, filepath.Join(dir, name+".pprof")); err != nil {
			say("profile %s: %v", name, err)
		}
	}()
	return func() {
		<-done // it takes its time whatever the phase takes
		cancel()
	}
}

// profileSeconds is how much of a phase is looked at.
const profileSeconds = 4

func (s *server) saveProfile(ctx context.Context, path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/debug/pprof/profile?seconds=%d", s.debug, profileSeconds), nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, resp.Body)
	return errors.Join(err, f.Close())
}
