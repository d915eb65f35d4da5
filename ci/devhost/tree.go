package devhost

import (
	"os"
	"os/exec"
	"strings"
	"testing"
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
