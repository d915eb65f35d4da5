package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn/toolstack/client"
)

// TestPasswordAndAudit: root changes his password through hostd, and what was
// done stands in the file beside the database, without what was secret.
func TestPasswordAndAudit(t *testing.T) {
	d := newInstance(t, "memory")
	address := d.address()
	c := d.login(address)
	ctx := t.Context()
	d.must(c.Call(ctx, "session.change_password", nil, password, "open barley"))
	_, err := client.Dial(ctx, client.Config{Addr: address, Username: "root", Password: "open barley"})
	d.must(err)
	d.stop()
	text, err := os.ReadFile(filepath.Join(d.cfg.state, "audit.log"))
	d.must(err)
	lines := strings.Split(string(text), "\n")
	for i, want := range []string{"message=session.login_with_password", "message=session.change_password", "message=session.login_with_password"} {
		if i >= len(lines) || !strings.Contains(lines[i], want+" result=ok") || !strings.Contains(lines[i], "user=root") {
			t.Fatalf("line %d lacks %s:\n%s", i+1, want, text)
		}
	}
	if strings.Contains(string(text), "open") {
		t.Errorf("a password stands in\n%s", text)
	}
}
