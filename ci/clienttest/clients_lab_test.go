//go:build lab

package clienttest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/wire/wiretest"
)

// patience bounds a client, its build and its download.
const patience = 5 * time.Minute

// run runs a program in a directory and returns what it printed.
func run(t *testing.T, dir string, program string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = dir
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %s: %v\n%s%s", program, strings.Join(args, " "), err, out.String(), complaints.String())
	}
	return out.String()
}

// said checks that a client took all its steps.
func said(t *testing.T, out string, steps ...string) {
	t.Helper()
	t.Logf("the client says:\n%s", out)
	for _, s := range steps {
		if !strings.Contains(out, s) {
			t.Errorf("the client did not say %q", s)
		}
	}
}

func TestGoClient(t *testing.T) {
	program := filepath.Join(t.TempDir(), "client")
	run(t, "go-xen-api-client", "go", "build", "-o", program, ".")
	out := run(t, ".", program, simulated(t), "root", wiretest.Password)
	said(t, out, "listed pools=1 hosts=2", "event add", "event del", "logged out")
}

func TestNodeClient(t *testing.T) {
	modules := nodeModules(t)
	out := run(t, modules, "node", "client.mjs", simulated(t), "root", wiretest.Password)
	said(t, out, "connected", "watched a change", "called async", "destroyed", "disconnected")
}

func TestNodeClientTransfers(t *testing.T) {
	modules := nodeModules(t)
	out := run(t, modules, "node", "client.mjs", transfers(t), "root", wiretest.Password, "transfers")
	said(t, out, "uploaded", "downloaded", "disconnected")
}

// nodeModules installs the packages of the lock file, whose checksums npm checks,
// into the cache once for each lock file, and puts the script beside them.
func nodeModules(t *testing.T) string {
	t.Helper()
	cache, err := os.UserCacheDir()
	if err != nil {
		t.Fatal(err)
	}
	lock := read(t, "npm/package-lock.json")
	sum := sha256.Sum256(lock)
	dir := filepath.Join(cache, "cairn", "npm-"+hex.EncodeToString(sum[:8]))
	if _, err := os.Stat(filepath.Join(dir, "installed")); errors.Is(err, fs.ErrNotExist) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, "package.json"), read(t, "npm/package.json"))
		write(t, filepath.Join(dir, "package-lock.json"), lock)
		run(t, dir, "npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--cache", filepath.Join(dir, "downloads"))
		write(t, filepath.Join(dir, "installed"), nil)
	}
	write(t, filepath.Join(dir, "client.mjs"), read(t, "npm/client.mjs"))
	return dir
}

func read(t *testing.T, name string) []byte {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(name, text, 0o644); err != nil {
		t.Fatal(err)
	}
}
