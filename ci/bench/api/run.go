package main

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"cairn/ci/bench/figure"
)

// config is the command line.
type config struct {
	Doc, Go, Profile string
	Sizes            sizes
	Samples, Peer    int
	Load             time.Duration
}

// sizes is a list of numbers as a flag.
type sizes []int

func (s *sizes) String() string {
	return strings.Trim(strings.ReplaceAll(fmt.Sprint([]int(*s)), " ", ","), "[]")
}

// Set implements flag.Value.
func (s *sizes) Set(text string) error {
	*s = nil
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(part)
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a number of VMs", part)
		}
		*s = append(*s, n)
	}
	return nil
}

const (
	hosts   = 16 // of the simulated pool
	clients = 25 // at once, for requests per second
	waiters = 64 // at once, for the delivery of events
)

func run(ctx context.Context, cfg config) error {
	if len(cfg.Sizes) == 0 {
		cfg.Sizes = sizes{1000, 4000}
	}
	begin := time.Now()
	r := report{Load: [2]string{figure.Load(), ""}}
	program, err := build(ctx, cfg)
	if err != nil {
		return err
	}
	defer os.Remove(program)
	for _, n := range cfg.Sizes {
		m, err := measure(ctx, cfg, program, n)
		if err != nil {
			return fmt.Errorf("%d VMs: %w", n, err)
		}
		r.Sizes = append(r.Sizes, m)
	}
	if cfg.Peer > 0 {
		if r.Peer, err = measurePeer(ctx, cfg); err != nil {
			return fmt.Errorf("libvirt: %w", err)
		}
	}
	r.Load[1], r.Took, r.CPUs = figure.Load(), time.Since(begin), runtime.NumCPU()
	return r.publish(cfg.Doc)
}

// measured is what one size of pool gave.
type measured struct {
	VMs             int
	JSON, XML       listing
	Requests        [2]float64 // per second, JSON and XML
	Event, AfterAck series     // of each delivery, from the request and from its answer
	RSS, Peak       int64      // bytes, when filled and at most
}

// listing is one encoding's lists of all VMs.
type listing struct {
	First time.Duration // nothing is encoded yet
	Warm  series
	Bytes int64
}

func measure(ctx context.Context, cfg config, program string, n int) (m measured, err error) {
	say("%d VMs: filling", n)
	s, err := startServer(ctx, cfg, program, n)
	if err != nil {
		return m, err
	}
	defer s.close()
	m.VMs = n
	if m.RSS, _, err = figure.Memory(s.pid()); err != nil {
		return m, err
	}
	api, err := login(ctx, s.addr)
	if err != nil {
		return m, err
	}
	steps := []struct {
		name string
		do   func() error
	}{
		{"list-json", func() error { m.JSON, err = api.lists(ctx, encodings[0], cfg.Samples); return err }},
		{"list-xml", func() error { m.XML, err = api.lists(ctx, encodings[1], cfg.Samples); return err }},
		{"load-json", func() error { m.Requests[0], err = api.load(ctx, encodings[0], cfg.Load); return err }},
		{"load-xml", func() error { m.Requests[1], err = api.load(ctx, encodings[1], cfg.Load); return err }},
		{"events", func() error { m.Event, m.AfterAck, err = api.events(ctx, cfg.Samples); return err }},
	}
	for _, step := range steps {
		say("%d VMs: %s", n, step.name)
		stop := s.profile(cfg.Profile, fmt.Sprintf("%s-%d", step.name, n))
		err := step.do()
		stop()
		if err != nil {
			return m, fmt.Errorf("%s: %w", step.name, err)
		}
	}
	_, m.Peak, err = figure.Memory(s.pid())
	return m, err
}

func say(format string, args ...any) { fmt.Fprintf(os.Stderr, "bench-api: "+format+"\n", args...) }
