package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"cairn/ci/bench/figure"
	"cairn/ci/lab"
	"cairn/ci/lab/demo"
	"cairn/image/debian"
	"cairn/init/debug"
)

type config struct {
	Image, Doc, Go string
	Rounds         int
	Settle         time.Duration
}

// password of root on the measured host.
const password = "correct horse"

// limit bounds one boot and its measurement.
const limit = 10 * time.Minute

// sample is one boot of one side.
type sample struct {
	Ready     float64 // seconds of uptime at the API's first answer
	Outside   float64 // Cairn: the same for a login over the network
	UsedKiB   int     // MemTotal - MemAvailable after settling
	Processes []debug.Process
}

// bench is one run of the whole comparison.
type bench struct {
	cfg   config
	tools *debian.Tree
	peer  peer
	agent string // raw ext4 image with the agent, for the peer
}

func run(ctx context.Context, cfg config) error {
	begin := time.Now()
	b, work, err := prepare(ctx, cfg)
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	var r report
	r.Load[0] = figure.Load()
	for round := range cfg.Rounds {
		for _, side := range []struct {
			name string
			cfg  lab.Config
			to   *[]sample
		}{{"cairn", b.cairn(), &r.Cairn}, {"debian", b.debian(), &r.Debian}} {
			s, err := b.measure(ctx, side.name, side.cfg)
			if err != nil {
				return fmt.Errorf("round %d: %s: %w", round+1, side.name, err)
			}
			*side.to = append(*side.to, s)
			fmt.Fprintf(os.Stderr, "bench-boot: round %d %-6s ready after %.1f s, %d MiB in use, load %s\n",
				round+1, side.name, s.Ready, s.UsedKiB>>10, figure.Load())
		}
	}
	r.Load[1], r.Took = figure.Load(), time.Since(begin)
	if r.PXEBytes, err = pxeBytes(cfg.Image); err != nil {
		return err
	}
	return r.publish(cfg.Doc)
}

func prepare(ctx context.Context, cfg config) (*bench, string, error) {
	tools, err := debian.Open(ctx, debian.Config{})
	if err != nil {
		return nil, "", err
	}
	work, err := os.MkdirTemp("", "cairn-bench-")
	if err != nil {
		return nil, "", err
	}
	b := &bench{cfg: cfg, tools: tools}
	if b.peer, err = openPeer(ctx, tools); err == nil {
		b.agent, err = buildAgent(ctx, cfg.Go, tools, work)
	}
	return b, work, err
}

// buildAgent makes a disk that holds the measuring program.
func buildAgent(ctx context.Context, gocmd string, tools *debian.Tree, work string) (string, error) {
	dir, disk := filepath.Join(work, "agent"), filepath.Join(work, "agent.raw")
	build := exec.CommandContext(ctx, gocmd, "build", "-trimpath", "-ldflags=-s -w", "-o", filepath.Join(dir, "agent"), "cairn/ci/bench/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	for _, cmd := range []*exec.Cmd{build, tools.Command(ctx, "mke2fs", "-q", "-t", "ext4", "-d", dir, disk, "32M")} {
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("agent: %w: %s", err, out)
		}
	}
	return disk, nil
}

// cairn and debian differ in nothing but what boots: 2 CPUs, 2 GiB, one disk
// and one NIC each, kernel started directly and quiet.
func (b *bench) cairn() lab.Config {
	return lab.Config{
		Name: "cairn", Tools: b.tools, Image: b.cfg.Image, Firmware: lab.Direct, Debug: true,
		Watchdog: true, SMBIOSConfig: lab.Document("cairn-lab", password),
	}
}

func (b *bench) debian() lab.Config {
	return lab.Config{
		Name: "debian", Tools: b.tools, Firmware: lab.Direct, Debug: true,
		Kernel: b.peer.Kernel(), Initrd: b.peer.Initrd(),
		Cmdline: []string{"root=/dev/vda", "rw", "console=ttyS0,115200", "quiet"},
		Disks:   []lab.Disk{{Backing: b.peer.Disk(), Serial: "root"}, {Path: b.agent, Format: "raw", Serial: "agent"}},
	}
}

func (b *bench) measure(ctx context.Context, side string, cfg lab.Config) (sample, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	h, err := lab.Start(ctx, cfg)
	if err != nil {
		return sample{}, err
	}
	defer h.Close()
	s, err := b.observe(ctx, side, h)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, h.Failure())
	}
	return s, err
}

func (b *bench) observe(ctx context.Context, side string, h *lab.Host) (sample, error) {
	ready, err := h.Wait(ctx, "api-ready")
	if err != nil {
		return sample{}, err
	}
	var s sample
	if s.Ready, err = ready.Seconds("uptime"); err != nil {
		return s, fmt.Errorf("%q: %w", ready.Text, err)
	}
	if side == "cairn" { // an API that says it is ready has to be
		if err := login(ctx, h); err != nil {
			return s, err
		}
		s.Outside = s.Ready + time.Since(ready.Seen).Seconds()
	}
	select {
	case <-time.After(time.Until(ready.Seen.Add(b.cfg.Settle))):
	case <-ctx.Done():
		return s, ctx.Err()
	}
	info, err := h.Debug(ctx, "read", "/proc/meminfo")
	if err != nil {
		return s, err
	}
	if s.UsedKiB, err = used(info.Output); err != nil {
		return s, err
	}
	all, err := h.Debug(ctx, "processes")
	s.Processes = all.Processes
	return s, err
}

func login(ctx context.Context, h *lab.Host) error {
	if _, err := demo.Await(ctx, h); err != nil {
		return err
	}
	api, err := demo.Login(ctx, h.Addr(), password)
	if err != nil {
		return err
	}
	return api.Close(ctx)
}

var meminfoLine = regexp.MustCompile(`(?m)^(MemTotal|MemAvailable):\s+(\d+) kB$`)

// used is MemTotal - MemAvailable of /proc/meminfo, in KiB.
func used(meminfo string) (int, error) {
	v := map[string]int{}
	for _, m := range meminfoLine.FindAllStringSubmatch(meminfo, -1) {
		v[m[1]], _ = strconv.Atoi(m[2])
	}
	if v["MemTotal"] <= v["MemAvailable"] || v["MemAvailable"] == 0 {
		return 0, fmt.Errorf("meminfo %q makes no sense", meminfo)
	}
	return v["MemTotal"] - v["MemAvailable"], nil
}

// pxeBytes is what a netboot fetches: the UKI and the root with its hash tree.
func pxeBytes(image string) (int64, error) {
	var sum int64
	for _, name := range []string{"host.efi", "root.erofs", "root.verity"} {
		info, err := os.Stat(filepath.Join(image, name))
		if err != nil {
			return 0, err
		}
		sum += info.Size()
	}
	return sum, nil
}
