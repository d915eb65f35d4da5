package main

import (
	"testing"
	"time"
)

// TestRestartAgent: the answer still comes, then the daemon ends in good order.
func TestRestartAgent(t *testing.T) {
	d := newInstance(t, "memory")
	c := d.login(d.address())
	ctx := t.Context()
	var hosts []string
	var pem string
	d.must(c.Call(ctx, "host.get_all", &hosts))
	d.must(c.Call(ctx, "host.get_server_certificate", &pem, hosts[0]))
	if len(pem) < 200 {
		t.Errorf("certificate %q", pem)
	}
	d.must(c.Call(ctx, "host.restart_agent", nil, hosts[0]))
	select {
	case err := <-d.done:
		if err != nil {
			t.Errorf("run: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("toolstackd does not end")
	}
}
