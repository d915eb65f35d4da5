package main

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// elevate goes on as root, which QEMU inside a user namespace needs: it sets
// groups, and only root's namespaces let it. What is built is built before, so
// that the user's caches stay the user's. It returns only when it fails.
func elevate(ctx context.Context, cfg config) error {
	if _, err := buildHost(ctx, cfg); err != nil {
		return err
	}
	sudo, err := exec.LookPath("sudo")
	if err != nil {
		return errors.New("run this as root, or install sudo")
	}
	argv := []string{"sudo", "env"}
	for _, name := range []string{"HOME", "PATH", "XDG_CACHE_HOME"} {
		if value := os.Getenv(name); value != "" {
			argv = append(argv, name+"="+value)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	argv = append(argv, self, "-built")
	return syscall.Exec(sudo, append(argv, os.Args[1:]...), os.Environ())
}
