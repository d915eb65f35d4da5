package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cairn/ci/lab"
	"cairn/ci/lab/demo"
	"cairn/image/debian"
	"cairn/toolstack/client"
)

type config struct {
	Image, Dir    string
	Firmware      string
	Go            string
	Once, NoBuild bool
	Port          int
	Deadline      time.Duration
}

// powerOff is how long a clean power-off may take: the grace of each service
// and the unmount, under emulation.
const powerOff = 2 * time.Minute

// dataMiB is the size of the disk for guests' disks. Its file grows as it is used.
const dataMiB = 16 << 10

// session is one run: the host, and what was said about it.
type session struct {
	cfg      config
	out      *progress
	host     *lab.Host
	api      *client.Client
	password string
	firmware lab.Firmware
}

// firmwares are the ways to boot, by the flag's value.
var firmwares = map[string]lab.Firmware{"direct": lab.Direct, "ovmf": lab.OVMF}

func run(ctx context.Context, cfg config) error {
	firmware, ok := firmwares[strings.ToLower(cfg.Firmware)]
	if !ok {
		return fmt.Errorf("firmware %q: it is direct or ovmf", cfg.Firmware)
	}
	alone, err := lock(cfg.Dir)
	if err != nil {
		return err
	}
	defer alone.Close()
	s := &session{cfg: cfg, out: newProgress(os.Stdout), password: newPassword(), firmware: firmware}
	defer s.out.stop()
	if err := s.build(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	deadline := time.AfterFunc(cfg.Deadline, func() { cancel(fmt.Errorf("not done after %s", cfg.Deadline)) })
	defer deadline.Stop()
	err = s.boot(ctx)
	if s.host != nil {
		defer s.host.Close()
	}
	if err == nil {
		err = s.guest(ctx)
	}
	if err == nil && !cfg.Once {
		deadline.Stop()
		err = s.stay(ctx)
	}
	if err == nil {
		err = s.end(context.WithoutCancel(ctx))
	}
	if err != nil {
		return s.explain(ctx, err)
	}
	return nil
}

// lock keeps a second run from taking the first one's disks away. It ends with
// the process, however that ends.
func lock(dir string) (io.Closer, error) {
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR|unix.O_CLOEXEC, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("a host runs from %s already; give this one another -dir", dir)
	}
	return f, nil
}

// explain adds what a reader needs to look further.
func (s *session) explain(ctx context.Context, err error) error {
	s.out.stop()
	if cause := context.Cause(ctx); cause != nil && !errors.Is(err, cause) {
		err = fmt.Errorf("%w (%w)", err, cause)
	}
	if s.host == nil || s.host.Console == nil {
		return err
	}
	return fmt.Errorf("%w\n--- last lines of the host's console, all of it in %s\n%s", err, s.host.SerialLog(), s.host.Tail(30))
}

// build brings the image up to date; it is quick when it is.
func (s *session) build(ctx context.Context) error {
	if s.cfg.NoBuild {
		return nil
	}
	s.out.expect("the image")
	cmd := exec.CommandContext(ctx, s.cfg.Go, "run", "./image/cmd/mkimage", "-out", s.cfg.Image)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	s.out.done("image is built", s.cfg.Image)
	return nil
}

func (s *session) boot(ctx context.Context) error {
	tools, err := debian.Open(ctx, debian.Config{})
	if err != nil {
		return err
	}
	if err := os.RemoveAll(s.cfg.Dir); err != nil {
		return err
	}
	s.host, err = lab.Start(ctx, lab.Config{
		Name: "cairn", Tools: tools, Image: s.cfg.Image, Dir: s.cfg.Dir, Firmware: s.firmware, Port: s.cfg.Port,
		Watchdog: true, Watch: s.out.line,
		// A blank disk beside the one the host runs from; the document gives it to the host.
		Disks:        []lab.Disk{{SizeMiB: dataMiB, Serial: "data"}},
		SMBIOSConfig: lab.Document("cairn-lab", s.password, "storage: {local: {type: ext, device: /dev/vdb}}"),
	})
	if err != nil {
		return err
	}
	how := "KVM"
	if why := lab.KVM(); why != nil {
		how = "emulation, " + why.Error()
	}
	s.out.done("host is powered on", "QEMU by "+how+", console in "+s.host.SerialLog())
	s.out.expect("the host's API")
	ready, err := demo.Await(ctx, s.host)
	if err != nil {
		return err
	}
	s.out.done("API is ready", "host uptime "+ready.Attrs["uptime"])
	s.api, err = demo.Login(ctx, s.host.Addr(), s.password)
	return err
}

// guest starts the demo guest and lets it speak for itself.
func (s *session) guest(ctx context.Context) error {
	s.out.expect("a guest")
	g, err := demo.Create(ctx, s.api, "demo")
	if err != nil {
		return err
	}
	begin := time.Now()
	if err := g.Start(ctx); err != nil {
		return err
	}
	s.out.done("guest is started", fmt.Sprintf("VM.start took %s, uuid %s", time.Since(begin).Round(time.Millisecond), g.UUID))
	s.out.expect("the guest's first words")
	log, err := os.Create(filepath.Join(s.cfg.Dir, "guest.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	console, detach, err := g.Console(ctx, log, nil)
	if err != nil {
		return err
	}
	defer detach.Close()
	hello, err := console.Text(ctx, demo.Greeting)
	if err != nil {
		return fmt.Errorf("%w\n--- last lines of the guest's console\n%s", err, console.Tail(20))
	}
	s.out.quote("guest", hello.Text)
	for range 3 {
		beat, err := demo.Heartbeats(ctx, console, 1)
		if err != nil {
			return err
		}
		s.out.quote("guest", beat.Text)
	}
	if err := s.storage(ctx); err != nil {
		return err
	}
	return s.proof(ctx, g)
}

// storage finds what the host has made of its second disk.
func (s *session) storage(ctx context.Context) error {
	var pools []string
	var sr string
	var size int64
	err := s.api.Call(ctx, "pool.get_all", &pools)
	if err == nil {
		err = s.api.Call(ctx, "pool.get_default_SR", &sr, pools[0])
	}
	if err == nil {
		err = s.api.Call(ctx, "SR.get_physical_size", &size, sr)
	}
	if err != nil {
		return fmt.Errorf("local storage: %w", err)
	}
	s.out.done("local storage is there", fmt.Sprintf("%d MiB for guests' disks", size>>20))
	return nil
}

// proof has QEMU say that KVM drives the guest, and under -once ends it.
func (s *session) proof(ctx context.Context, g *demo.Guest) error {
	kvm, err := g.QueryKVM(ctx)
	if err != nil {
		return err
	}
	s.out.quote("query-kvm", kvm.Text)
	if !kvm.Enabled {
		return errors.New("the guest runs, but KVM does not drive it")
	}
	if !s.cfg.Once {
		return nil
	}
	s.out.expect("the guest to shut down")
	if err := g.CleanShutdown(ctx); err != nil {
		return err
	}
	state, err := g.PowerState(ctx)
	if err == nil && state != "Halted" {
		err = fmt.Errorf("guest is %s after VM.clean_shutdown", state)
	}
	if err == nil {
		s.out.done("guest is shut down", "")
	}
	return err
}

// stay prints what to try and waits for Ctrl-C or for the host to end.
func (s *session) stay(ctx context.Context) error {
	_, port, err := net.SplitHostPort(s.host.Addr())
	if err != nil {
		return err
	}
	s.out.stop()
	xe := fmt.Sprintf("  .build/bin/xe -s 127.0.0.1 -p %s -u root -pw %s", port, s.password)
	fmt.Printf("\nThe host is up. URL https://%s/  user root  password %s\n\n", s.host.Addr(), s.password)
	fmt.Println(xe, "vm-list")
	fmt.Println(xe, `vm-install template="Cairn demo guest" new-name-label=mine`)
	fmt.Println(xe, `vm-install template="Debian Trixie 13" new-name-label=debian   # with a disk on "Local storage"`)
	fmt.Println(xe, "console vm=demo")
	fmt.Println("\nCtrl-C powers it off.")
	select {
	case <-ctx.Done():
		return nil
	case <-s.host.Exited():
		e, err := s.host.WaitExit(context.Background())
		if err == nil && e.Reason != "guest-shutdown" {
			err = fmt.Errorf("the host ended by itself: %s", e.Reason)
		}
		return err
	}
}

// end powers the host off by its power button.
func (s *session) end(ctx context.Context) error {
	select {
	case <-s.host.Exited():
		return nil
	default:
	}
	ctx, cancel := context.WithTimeout(ctx, powerOff)
	defer cancel()
	s.out.expect("the host to power off")
	if err := s.host.PowerOff(ctx); err != nil {
		return err
	}
	s.out.done("host is powered off", "")
	return nil
}

func newPassword() string { return strings.ToLower(rand.Text()[:12]) }
