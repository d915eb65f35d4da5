//go:build lab

package labtest

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"cairn/ci/lab"
	"cairn/ci/lab/demo"
	"cairn/toolstack/client"
)

// keyboard is a guest's serial console with both directions.
type keyboard struct {
	*lab.Console
	keys io.Writer
}

// sit attaches to a guest's console until the test ends.
func sit(ctx context.Context, t *testing.T, g *demo.Guest) keyboard {
	t.Helper()
	console, keys, err := g.Console(ctx, t.Output(), nil)
	must(t, err)
	t.Cleanup(func() { keys.Close() })
	return keyboard{console, keys}
}

// up starts a guest and waits until it says it is there.
func up(ctx context.Context, t *testing.T, g *demo.Guest) keyboard {
	t.Helper()
	must(t, g.Start(ctx))
	k := sit(ctx, t, g)
	_, err := k.Text(ctx, demo.Greeting)
	must(t, err)
	return k
}

// ask types a command of the guest's agent and returns the lines of its answer.
func (k keyboard) ask(ctx context.Context, t *testing.T, format string, args ...any) []string {
	t.Helper()
	command := fmt.Sprintf(format, args...)
	name, _, _ := strings.Cut(command, " ")
	k.Mark()
	before := len(k.Lines())
	_, err := io.WriteString(k.keys, command+"\n")
	must(t, err)
	ended := func(l string) bool {
		return strings.HasPrefix(l, name+" ok ms=") || strings.HasPrefix(l, name+" failed err=")
	}
	for {
		l, err := k.Text(ctx, name+" ")
		must(t, err)
		if text := strings.TrimSpace(l.Text); ended(text) {
			if strings.Contains(text, " failed ") {
				t.Fatalf("%s: %s", command, text)
			}
			break
		}
		k.MarkAfter(l)
	}
	var answer []string
	for _, l := range k.Lines()[before:] {
		answer = append(answer, strings.TrimSpace(l.Text))
	}
	return answer
}

// word finds key=value in an answer's lines of a kind ("sum").
func word(t *testing.T, answer []string, kind, key string) string {
	t.Helper()
	for _, l := range answer {
		if !strings.HasPrefix(l, kind+" ") {
			continue
		}
		for _, w := range strings.Fields(l) {
			if v, ok := strings.CutPrefix(w, key+"="); ok {
				return v
			}
		}
	}
	t.Fatalf("no %s of %s in %q", key, kind, answer)
	return ""
}

// sum is the checksum of a whole disk as the guest reads it.
func (k keyboard) sum(ctx context.Context, t *testing.T, disk string) string {
	t.Helper()
	return word(t, k.ask(ctx, t, "sum %s", disk), "sum", "sha256")
}

// fill writes a pattern to a disk and returns the checksum of all of it.
func (k keyboard) fill(ctx context.Context, t *testing.T, disk string, seed, mib int) string {
	t.Helper()
	k.ask(ctx, t, "fill %s %d %d", disk, seed, mib)
	return k.sum(ctx, t, disk)
}

// api calls the host and fails the test on an error.
type api struct {
	t *testing.T
	*client.Client
}

func (a api) call(ctx context.Context, out any, method string, args ...any) {
	a.t.Helper()
	start := time.Now()
	if err := a.Call(ctx, method, out, args...); err != nil {
		a.t.Fatalf("%s: %v", method, err)
	}
	a.t.Logf("%s took %s", method, time.Since(start).Round(time.Millisecond))
}

// ref is a call that answers a reference.
func (a api) ref(ctx context.Context, method string, args ...any) (ref string) {
	a.t.Helper()
	a.call(ctx, &ref, method, args...)
	return ref
}

// text is a call that answers text.
func (a api) text(ctx context.Context, method string, args ...any) string {
	a.t.Helper()
	return a.ref(ctx, method, args...)
}

// first is a call that answers a set of references, of which there is one.
func (a api) first(ctx context.Context, method string, args ...any) string {
	a.t.Helper()
	var refs []string
	a.call(ctx, &refs, method, args...)
	if len(refs) != 1 {
		a.t.Fatalf("%s answered %d objects, want one", method, len(refs))
	}
	return refs[0]
}

// repository makes a storage repository on a device of the host and the pool's
// default.
func (a api) repository(ctx context.Context, kind, device string) string {
	a.t.Helper()
	host, pool := a.first(ctx, "host.get_all"), a.first(ctx, "pool.get_all")
	sr := a.ref(ctx, "SR.create", host, map[string]string{"device": device}, "0", "local "+kind, "", kind, "user", false, map[string]string{})
	a.call(ctx, nil, "pool.set_default_SR", pool, sr)
	a.call(ctx, nil, "pool.set_suspend_image_SR", pool, sr)
	return sr
}

// disk makes a disk and returns its reference and serial number.
func (a api) disk(ctx context.Context, sr, name string, bytes int64) (ref, serial string) {
	a.t.Helper()
	ref = a.ref(ctx, "VDI.create", map[string]any{
		"name_label": name, "name_description": "", "SR": sr, "virtual_size": fmt.Sprint(bytes), "type": "user",
		"sharable": false, "read_only": false, "other_config": map[string]string{},
	})
	return ref, a.text(ctx, "VDI.get_uuid", ref)
}

// drive joins a disk to a machine.
func (a api) drive(ctx context.Context, vm, vdi, userdevice, kind string) string {
	a.t.Helper()
	mode := "RW"
	if kind == "CD" {
		mode = "RO"
	}
	return a.ref(ctx, "VBD.create", map[string]any{
		"VM": vm, "VDI": vdi, "userdevice": userdevice, "bootable": kind == "CD", "mode": mode, "type": kind,
		"unpluggable": true, "empty": vdi == "OpaqueRef:NULL", "other_config": map[string]string{},
		"qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	})
}

// nic joins a machine to a network.
func (a api) nic(ctx context.Context, vm, network, device string) string {
	a.t.Helper()
	return a.ref(ctx, "VIF.create", map[string]any{
		"VM": vm, "network": network, "device": device, "MAC": "", "MTU": "1500", "other_config": map[string]string{},
		"qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	})
}
