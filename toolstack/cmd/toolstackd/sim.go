//go:build sim || lab

package main

import (
	"errors"
	"flag"
	"net/http"
	_ "net/http/pprof" // on -debug's address only
	"os"
	"path/filepath"

	hostconfig "cairn/init/config"
	"cairn/toolstack/hypervisor/sim"
)

// This file is compiled into builds for development only: a simulated pool in
// place of libvirt and hostd.

func init() { extras = append(extras, simFlags, debugFlags) }

func simFlags(f *flag.FlagSet) func(*config) error {
	hosts := f.Int("sim-hosts", 0, "simulate a pool of so many `hosts`")
	vms := f.Int("sim-vms", 0, "with so many `VMs`")
	seed := f.Uint64("sim-seed", 1, "`number` that decides what they are like")
	password := f.String("sim-password", "", "root's `password`")
	return func(cfg *config) error {
		if *hosts == 0 {
			return nil
		}
		guests, err := simGuest(cfg.state)
		if err != nil {
			return err
		}
		p, err := sim.New(sim.Config{Hosts: *hosts, VMs: *vms, Seed: *seed, Pace: sim.LifeLike, GuestDir: guests})
		if err != nil {
			return err
		}
		cfg.pool, cfg.guests, cfg.fakeHypervisor = p, guests, p.First()
		h := sim.Hostd(hostconfig.HashPassword(*password))
		h.Hostd = p.Storage()
		cfg.fakeHostd = h
		return nil
	}
}

// simGuest makes the files that simulated guests seem to boot.
func simGuest(state string) (string, error) {
	dir := filepath.Join(state, "guest")
	return dir, errors.Join(os.MkdirAll(dir, 0o755),
		os.WriteFile(filepath.Join(dir, "vmlinuz"), nil, 0o644), os.WriteFile(filepath.Join(dir, "initrd.img"), nil, 0o644))
}

// debugFlags let Go's profiler look.
func debugFlags(f *flag.FlagSet) func(*config) error {
	address := f.String("debug", "", "`address` where the profiler listens")
	return func(cfg *config) error {
		if *address != "" {
			go func() { cfg.log.Warn("profiler", "err", http.ListenAndServe(*address, nil)) }()
		}
		return nil
	}
}
