package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"testing"
)

// peer plays QEMU: answers each command by its name.
func peer(t *testing.T, conn net.Conn, answers map[string]string) {
	t.Helper()
	fmt.Fprintln(conn, `{"QMP": {"version": {}, "capabilities": ["oob"]}}`)
	s := bufio.NewScanner(conn)
	for s.Scan() {
		var req struct {
			Execute string `json:"execute"`
			ID      uint64 `json:"id"`
		}
		if err := json.Unmarshal(s.Bytes(), &req); err != nil {
			t.Errorf("request %q: %v", s.Text(), err)
		}
		if req.Execute == "quit" {
			_ = conn.Close()
			return
		}
		fmt.Fprintln(conn, `{"event": "RESET", "data": {"guest": true, "reason": "guest-reset"}, "timestamp": {"seconds": 1, "microseconds": 2}}`)
		fmt.Fprintf(conn, "torn line\n{%s, \"id\": %d}\n", answers[req.Execute], req.ID)
	}
}

func dial(t *testing.T) (*Client, *[]Event) {
	t.Helper()
	a, b := net.Pipe()
	go peer(t, b, map[string]string{
		"qmp_capabilities":      `"return": {}`,
		"query-kvm":             `"return": {"enabled": true, "present": true}`,
		"human-monitor-command": `"return": "hello"`,
		"bad":                   `"error": {"class": "CommandNotFound", "desc": "no such command"}`,
	})
	var events []Event
	c, err := Connect(context.Background(), a, func(e Event) { events = append(events, e) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, &events
}

func TestExecute(t *testing.T) {
	c, events := dial(t)
	ctx := context.Background()
	var kvm struct{ Enabled bool }
	if err := c.Execute(ctx, "query-kvm", nil, &kvm); err != nil || !kvm.Enabled {
		t.Errorf("query-kvm: %+v, %v", kvm, err)
	}
	if s, err := c.Human(ctx, "info usernet"); err != nil || s != "hello" {
		t.Errorf("human: %q, %v", s, err)
	}
	var refused *Error
	if err := c.Execute(ctx, "bad", nil, nil); !errors.As(err, &refused) || refused.Class != "CommandNotFound" {
		t.Errorf("bad: %v", err)
	}
	if err := c.Execute(ctx, "quit", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("quit: %v", err)
	}
	<-c.Done()
	if len(*events) != 4 || (*events)[0].Data["reason"] != "guest-reset" {
		t.Errorf("events: %+v", *events)
	}
}

func TestExecuteDeadline(t *testing.T) {
	c, _ := dial(t)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.Execute(ctx, "query-kvm", nil, nil); err != nil && !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(`{"return": {}, "id": 1}`))
	f.Add([]byte(`{"event": "RESET", "data": {"guest": true}, "timestamp": {"seconds": 1}}`))
	f.Add([]byte(`{"QMP": null}`))
	f.Add([]byte(`{"error": {"class": "x", "desc": "y"}, "id": -1}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		m, err := parse(line)
		if err == nil {
			_ = m.event()
			_ = result("x", m, nil)
		}
	})
}
