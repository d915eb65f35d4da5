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
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cairn/toolstack/client"
)

// config is the command line.
type config struct {
	Listen, Dir, Bin, Go string
	Fresh, Built         bool
	SimHosts, SimVMs     int
	// Args are further arguments of toolstackd.
	Args []string
}

// user and password of the API; it answers on loopback only.
const (
	user     = "root"
	password = "cairn"
)

// startLimit is how long the API may take to answer on a slow, busy machine.
const startLimit = 3 * time.Minute

// host is what serves the API.
type host interface {
	// Gone is closed when it has ended by itself.
	Gone() <-chan struct{}
	// Deaths tells of daemons that have ended by themselves, and Restart starts one
	// again.
	Deaths() <-chan death
	Restart(name string) error
	// Close ends it in order and returns when nothing of it is left.
	Close() error
}

func run(ctx context.Context, cfg config) error {
	begin := time.Now()
	if cfg.SimHosts == 0 && os.Getuid() != 0 {
		return elevate(ctx, cfg)
	}
	var err error
	if cfg.Dir, err = filepath.Abs(cfg.Dir); err != nil {
		return err
	}
	dir, err := openDir(cfg.Dir)
	if err != nil {
		return err
	}
	defer dir.Close()
	if cfg.Fresh {
		if err := empty(cfg.Dir); err != nil {
			return err
		}
	}
	listener, err := listen(cfg.Listen)
	if err != nil {
		return err
	}
	defer listener.Close()
	cfg.Listen = listener.Addr().String()
	log, err := openLog(filepath.Join(cfg.Dir, "log"))
	if err != nil {
		return err
	}
	defer log.Close()
	h, err := start(ctx, cfg, listener, log)
	if err != nil {
		return errors.Join(err, log.explain())
	}
	listener.Close() // the host has its own hold on it
	err = stay(ctx, cfg, h, log, begin)
	return errors.Join(err, h.Close())
}

func start(ctx context.Context, cfg config, l *net.TCPListener, log io.Writer) (host, error) {
	if cfg.SimHosts > 0 {
		return startPool(ctx, cfg, l, log)
	}
	return startHost(ctx, cfg, l, log)
}

// empty forgets all of a directory but its lock.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		if e.Name() != lockName {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	return err
}

// lockName is the file that tells a directory in use.
const lockName = "lock"

// openDir makes the directory and takes it for this run alone.
func openDir(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		return nil, fmt.Errorf("%s is in use by another run", dir)
	}
	return lock, nil
}

func listen(address string) (*net.TCPListener, error) {
	addr, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, err
	}
	if !addr.IP.IsLoopback() {
		return nil, fmt.Errorf("%s is not a loopback address, and everybody knows the password", address)
	}
	return net.ListenTCP("tcp", addr)
}

// build builds a program of this tree into a file; it is quick when nothing has
// changed.
func build(ctx context.Context, cfg config, pkg, out string, args ...string) (string, error) {
	path, err := filepath.Abs(filepath.Join(cfg.Bin, out))
	if err != nil || cfg.Built {
		return path, err
	}
	args = append([]string{"build", "-trimpath", "-o", path}, args...)
	cmd := exec.CommandContext(ctx, cfg.Go, append(args, pkg)...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("build %s: %w", pkg, err)
	}
	return path, nil
}

// stay waits until the API answers, says so, and waits for the end. Meanwhile it starts
// daemons again that have ended.
func stay(ctx context.Context, cfg config, h host, log *logFile, begin time.Time) error {
	kept, giveUp := context.WithCancelCause(ctx)
	var keeper sync.WaitGroup
	keeper.Go(func() {
		if err := keep(kept, h, os.Stdout); err != nil {
			giveUp(err)
		}
	})
	defer keeper.Wait() // nothing is started while the host is closed
	defer giveUp(nil)
	err := await(kept, cfg, h, log)
	if err == nil {
		fmt.Printf("ready  https://%s  user %s, password %s  (%.1f s)\n", cfg.Listen, user, password, time.Since(begin).Seconds())
		fmt.Print(hints(cfg))
		select {
		case <-kept.Done():
		case <-h.Gone():
			fmt.Println("the host has ended by itself; its log is", log.path)
			return nil
		}
	}
	switch {
	case ctx.Err() != nil: // by the user, perhaps before it was ready
		fmt.Println("\nending")
		return nil
	case kept.Err() != nil:
		err = context.Cause(kept)
	}
	return errors.Join(err, log.explain())
}

// await returns once the log says that the API is worth calling, a login has
// succeeded, and there is a place for disks.
func await(ctx context.Context, cfg config, h host, log *logFile) error {
	ctx, cancel := context.WithTimeout(ctx, startLimit)
	defer cancel()
	select {
	case <-log.ready:
	case <-h.Gone():
		return errors.New("the host ended while it started")
	case <-ctx.Done():
		return fmt.Errorf("no answer of the API: %w", context.Cause(ctx))
	}
	api, err := client.Dial(ctx, client.Config{Addr: cfg.Listen, Username: user, Password: password, Originator: "make dev"})
	if err != nil {
		return fmt.Errorf("login: %w", err)
	}
	if cfg.SimHosts == 0 {
		err = stored(ctx, cfg, api)
	}
	return errors.Join(err, api.Close(ctx))
}
