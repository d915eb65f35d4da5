package life

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"cairn/ci/lab/demo"
	"cairn/ci/lab/inside"
	"cairn/toolstack/client"
)

// A guest of a crowd has little: the host's memory must do for all of them.
const (
	crowdMemory = 128 << 20
	crowdDisk   = 16 << 20
)

// size is how many are a crowd. Fewer are enough to try the script on a busy machine.
var size = flag.Int("guests", 20, "guests at once in tests of a crowd")

// Crowd is many guests at once, each with a disk and a NIC.
type Crowd struct {
	API  API
	Host inside.Host

	before      Census
	sr, network string
	guests      []*member
}

// member is one guest of the crowd.
type member struct {
	*demo.Guest
	vdi, serial string
	awake       bool // it has greeted
}

// NewCrowd takes a census and makes guests, all at once, with disks in a new
// repository and NICs in a new network.
func NewCrowd(ctx context.Context, t testing.TB, c *client.Client, host inside.Host, kind string, config map[string]string) *Crowd {
	t.Helper()
	w := &Crowd{API: API{t, c}, Host: host}
	w.before = Count(ctx, w.API, host)
	w.sr = w.API.Repository(ctx, kind, config)
	w.network = w.API.Network(ctx, "crowd")
	for i := range *size {
		w.guests = append(w.guests, &member{Guest: &demo.Guest{Name: fmt.Sprintf("crowd-%02d", i)}})
	}
	w.all(ctx, "created", w.create)
	return w
}

// all does something with every guest at the same time.
func (w *Crowd) all(ctx context.Context, what string, do func(ctx context.Context, i int, m *member) error) {
	w.API.T.Helper()
	w.of(ctx, w.guests, what, do)
}

// of does something with some guests at the same time.
func (w *Crowd) of(ctx context.Context, guests []*member, what string, do func(ctx context.Context, i int, m *member) error) {
	w.API.T.Helper()
	start := time.Now()
	failed := make([]error, len(guests))
	var group sync.WaitGroup
	for i, m := range guests {
		group.Go(func() {
			if err := do(ctx, i, m); err != nil {
				failed[i] = fmt.Errorf("%s: %w", m.Name, err)
			}
		})
	}
	group.Wait()
	must(w.API.T, errors.Join(failed...))
	w.API.T.Logf("%d guests %s after %s", len(guests), what, time.Since(start).Round(time.Millisecond))
}

func (w *Crowd) create(ctx context.Context, _ int, m *member) (err error) {
	made, err := demo.Create(ctx, w.API.Client, m.Name)
	if err != nil {
		return err
	}
	m.Guest = made
	if m.vdi, err = w.API.NewDisk(ctx, w.sr, m.Name, crowdDisk); err != nil {
		return err
	}
	var vbd, vif string
	return errors.Join(
		w.API.Client.Call(ctx, "VDI.get_uuid", &m.serial, m.vdi),
		w.API.Client.Call(ctx, "VM.set_memory_limits", nil, m.Ref, crowdMemory, crowdMemory, crowdMemory, crowdMemory),
		w.API.Client.Call(ctx, "VBD.create", &vbd, drive(m.Ref, m.vdi, "0", "Disk")),
		w.API.Client.Call(ctx, "VIF.create", &vif, nic(m.Ref, w.network, "0")),
	)
}

// Live starts some guests and waits until they have greeted and written, starts all the
// others beside them, and stops all: half of them by the power button, as many as can
// hear it, the rest by taking their power away.
func (w *Crowd) Live(ctx context.Context, greetings int) {
	w.API.T.Helper()
	first, others := w.guests[:min(greetings, len(w.guests))], w.guests[min(greetings, len(w.guests)):]
	w.start(ctx, first)
	w.of(ctx, first, "heard", func(ctx context.Context, _ int, m *member) error { return m.listen(ctx) })
	for i, m := range first {
		m.awake = true
		Sit(ctx, w.API.T, m.Guest).Ask(ctx, w.API.T, "fill %s %d 1", m.serial, i)
	}
	w.start(ctx, others)
	w.all(ctx, "running", func(ctx context.Context, _ int, m *member) error { return m.is(ctx, "Running") })
	w.present(ctx)
	w.stop(ctx)
	w.all(ctx, "halted", func(ctx context.Context, _ int, m *member) error { return m.is(ctx, "Halted") })
	if n := Sound(ctx, w.API, w.Host); n < len(w.guests) {
		w.API.T.Errorf("%d images were looked at, of %d guests", n, len(w.guests))
	}
}

// start starts guests. Those that boot already would slow down those that are being made.
func (w *Crowd) start(ctx context.Context, guests []*member) {
	w.API.T.Helper()
	w.of(ctx, guests, "started", func(ctx context.Context, _ int, m *member) error {
		return w.API.Client.Call(ctx, "VM.start", nil, m.Ref, true, false)
	})
	w.of(ctx, guests, "let go", func(ctx context.Context, _ int, m *member) error {
		return w.API.Client.Call(ctx, "VM.unpause", nil, m.Ref)
	})
}

// listen waits for the guest's greeting.
func (m *member) listen(ctx context.Context) error {
	console, keys, err := m.Console(ctx, io.Discard, nil)
	if err != nil {
		return err
	}
	defer keys.Close()
	_, err = console.Text(ctx, demo.Greeting)
	return err
}

func (w *Crowd) stop(ctx context.Context) {
	w.API.T.Helper()
	var deaf, hearing []*member
	for _, m := range w.guests {
		if m.awake && len(hearing) < len(w.guests)/2 {
			hearing = append(hearing, m)
		} else {
			deaf = append(deaf, m)
		}
	}
	// Who finds no time to hear beside the others does when they are gone.
	w.of(ctx, deaf, "stopped hard", func(ctx context.Context, _ int, m *member) error { return m.HardShutdown(ctx) })
	w.of(ctx, hearing, "stopped", func(ctx context.Context, _ int, m *member) error { return m.CleanShutdown(ctx) })
}

func (m *member) is(ctx context.Context, want string) error {
	got, err := m.PowerState(ctx)
	if err == nil && got != want {
		err = fmt.Errorf("is %s, want %s", got, want)
	}
	return err
}

// present asserts that a census sees what guests have while they run: one that
// sees nothing would find nothing left of them either.
func (w *Crowd) present(ctx context.Context) {
	w.API.T.Helper()
	found := Count(ctx, w.API, w.Host).Beyond(w.before).Kinds()
	for _, kind := range []string{"process", "link", "port", "file", "VM", "VBD", "VIF", "VDI", "console", "VM_metrics"} {
		if found[kind] < len(w.guests) {
			w.API.T.Errorf("%d of kind %s, of %d guests", found[kind], kind, len(w.guests))
		}
	}
	if each := 3 * len(w.guests); found["rule"] < each { // a chain, its element of the map, a counter
		w.API.T.Errorf("%d rules, want %d", found["rule"], each)
	}
	w.API.T.Logf("while %d guests run: %v", len(w.guests), found)
}

// End destroys all there is of the crowd; nothing of it may be left.
func (w *Crowd) End(ctx context.Context) {
	w.API.T.Helper()
	w.all(ctx, "destroyed", func(ctx context.Context, _ int, m *member) error {
		return errors.Join(m.Destroy(ctx), w.API.Client.Call(ctx, "VDI.destroy", nil, m.vdi))
	})
	w.API.Empty(ctx, w.sr)
	w.API.Call(ctx, nil, "network.destroy", w.network)
	w.API.Call(ctx, nil, "PBD.unplug", w.API.First(ctx, "SR.get_PBDs", w.sr))
	w.API.Call(ctx, nil, "SR.destroy", w.sr)
	NothingBeyond(ctx, w.API, w.Host, w.before)
}
