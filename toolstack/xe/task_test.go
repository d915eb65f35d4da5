package xe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"cairn/toolstack/client"
)

// taskAPI is a host with one task that goes through the given states, one for
// each wait; at a state "block" the wait lasts until the caller gives up.
type taskAPI struct {
	fakeAPI
	states []values
	calls  []string
	block  func()
}

// Call implements API.
func (a *taskAPI) Call(ctx context.Context, method string, out any, args ...any) error {
	a.calls = append(a.calls, method)
	switch p := out.(type) {
	case *string:
		*p = "OpaqueRef:task"
	case *batch:
		if len(a.states) == 0 {
			return errors.New("asked too often")
		}
		v := a.states[0]
		a.states = a.states[1:]
		if v["status"] == "block" {
			a.block()
			<-ctx.Done()
			return ctx.Err()
		}
		p.Token = "t"
		p.Events = append(p.Events, struct {
			Operation string `json:"operation"`
			Ref       string `json:"ref"`
			Snapshot  values `json:"snapshot"`
		}{"mod", "OpaqueRef:task", v})
	}
	return nil
}

func state(t *testing.T, status string, progress float64, more string) values {
	t.Helper()
	var v values
	if err := v.UnmarshalJSON(fmt.Appendf(nil, `{"status":%q,"progress":%v%s}`, status, progress, more)); err != nil {
		t.Fatal(err)
	}
	return v
}

func TestTasks(t *testing.T) {
	tests := []struct {
		name     string
		last     values
		terminal bool
		answer   string // or the error
		errOut   string
	}{
		{"result", state(t, "success", 1, `,"result":"<value>OpaqueRef:x</value>"`), false, `"OpaqueRef:x"`, ""},
		{"bar", state(t, "success", 1, `,"result":""`), true, `""`,
			"\rVM.copy [" + strings.Repeat("#", 20) + strings.Repeat(".", 20) + "]  50%\r\x1b[K"},
		{"failure", state(t, "failure", 1, `,"error_info":["SR_FULL","1","2"]`), false, "SR_FULL: 1, 2", ""},
		{"cancelled", state(t, "cancelled", 1, ""), false, "TASK_CANCELLED: OpaqueRef:task", ""},
		{"says nothing", state(t, "failure", 1, ""), false, "INTERNAL_ERROR: the task does not say why it failed", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := &taskAPI{states: []values{state(t, "pending", 0.5, ""), tt.last}}
			var errOut strings.Builder
			s := &session{api: a, errOut: &errOut, cfg: Config{Terminal: tt.terminal}}
			answer, err := s.watch(t.Context(), "VM.copy", nil)
			got := string(answer)
			if err != nil {
				got = err.Error()
			}
			if got != tt.answer || errOut.String() != tt.errOut {
				t.Errorf("got %s, stderr %q", got, errOut.String())
			}
			if want := "Async.VM.copy event.from event.from task.destroy"; strings.Join(a.calls, " ") != want {
				t.Errorf("calls %v", a.calls)
			}
		})
	}
}

// TestInterruptCancelsTheTask: the host is told, the end is awaited, the task
// is removed.
func TestInterruptCancelsTheTask(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	a := &taskAPI{states: []values{{"status": "block"}, state(t, "cancelled", 1, "")}, block: interrupt}
	s := &session{api: a, errOut: io.Discard}
	_, err := s.watch(ctx, "VM.start", nil)
	if !client.IsCode(err, "TASK_CANCELLED") {
		t.Errorf("got %v", err)
	}
	if want := "Async.VM.start event.from task.cancel event.from task.destroy"; strings.Join(a.calls, " ") != want {
		t.Errorf("calls %v", a.calls)
	}
}
