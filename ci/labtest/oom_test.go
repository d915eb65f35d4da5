//go:build lab

package labtest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"cairn/ci/lab"
	"cairn/ci/lab/demo"
	"cairn/toolstack/client"
)

// TestVMOutOfMemory: operators hear of a guest whose emulator the kernel killed for
// lack of memory, and of one whose emulator died otherwise, and can tell them apart.
func TestVMOutOfMemory(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), lifeLimit)
	defer cancel()
	h, c := ready(ctx, t)
	g := create(ctx, t, c, "greedy")
	must(t, c.Call(ctx, "VM.set_actions_after_crash", nil, g.Ref, "destroy"))
	for _, tt := range []struct {
		want string
		end  func()
	}{
		{"out of memory", func() { squeeze(ctx, t, h) }},
		{"its emulator died", func() {
			_, err := h.Kill(ctx, "qemu-system-x86")
			must(t, err)
		}},
	} {
		greeted(ctx, t, g)
		news := listen(ctx, t, c)
		tt.end()
		if body := news.crash(ctx, t, g); !strings.Contains(body, tt.want) {
			t.Errorf("told %q, want %q", body, tt.want)
		}
		wantState(ctx, t, g, "Halted")
	}
	must(t, g.Destroy(ctx))
	powerOff(ctx, t, h)
}

// squeeze leaves the guest's control group less memory than its emulator has in use.
func squeeze(ctx context.Context, t *testing.T, h *lab.Host) {
	t.Helper()
	p, err := h.Process(ctx, "qemu-system-x86")
	must(t, err)
	a, err := h.Debug(ctx, "read", fmt.Sprintf("/proc/%d/cgroup", p.PID))
	must(t, err)
	const made = ".libvirt-qemu"
	group, _, ok := strings.Cut(strings.TrimPrefix(a.Output, "0::"), made)
	if !ok {
		t.Fatalf("the guest is in %q", a.Output)
	}
	_, err = h.Debug(ctx, "write", "/sys/fs/cgroup"+group+made+"/memory.max", "8M")
	must(t, err)
}

// messages are alerts since a moment.
type messages struct {
	api   *client.Client
	token string
}

func listen(ctx context.Context, t *testing.T, c *client.Client) *messages {
	t.Helper()
	m := &messages{api: c}
	var batch struct {
		Token string `json:"token"`
	}
	must(t, c.Call(ctx, "event.from", &batch, []string{"message"}, "", 1.0))
	m.token = batch.Token
	return m
}

// crash waits until it is told that a guest crashed, and returns what is said.
func (m *messages) crash(ctx context.Context, t *testing.T, g *demo.Guest) string {
	t.Helper()
	for {
		var batch struct {
			Token  string `json:"token"`
			Events []struct {
				Snapshot struct {
					Name   string `json:"name"`
					Object string `json:"obj_uuid"`
					Body   string `json:"body"`
				} `json:"snapshot"`
			} `json:"events"`
		}
		must(t, m.api.Call(ctx, "event.from", &batch, []string{"message"}, m.token, 30.0))
		m.token = batch.Token
		for _, e := range batch.Events {
			if e.Snapshot.Name == "VM_CRASHED" && e.Snapshot.Object == g.UUID {
				return e.Snapshot.Body
			}
		}
	}
}
