package devhost

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"cairn/init/hostd/client"
)

// Tree is the Debian tree of the build: what CAIRN_TREE names, else what the
// builder's own command finds or makes.
func Tree(t testing.TB) string {
	t.Helper()
	if dir := os.Getenv("CAIRN_TREE"); dir != "" {
		return dir
	}
	cmd := exec.Command("go", "run", "cairn/image/cmd/debian-tree")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("debian tree: %v", err)
	}
	return strings.TrimSpace(string(out))
}

// Hostd runs hostd for a test, with the real tools, and returns the directory of all
// that it writes, the host it is on and a client of it.
func Hostd(t testing.TB) (dir string, l *Libvirt, c *client.Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "lv")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	log := &bytes.Buffer{}
	l, err = Start(t.Context(), Config{Tree: Tree(t), Dir: dir, Daemons: []Daemon{{Name: "hostd", Role: RoleHostd, Socket: client.Socket}}, Output: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		l.Close()
		if t.Failed() {
			t.Log(log)
		}
	})
	if err := l.Run("hostd"); err != nil {
		t.Fatal(err)
	}
	c = client.New(dir + client.Socket)
	t.Cleanup(c.Close)
	return dir, l, c
}
