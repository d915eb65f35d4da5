package erofs

import (
	"context"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// said stands for the Debian tree: every program is a shell command that prints.
type said string

func (s said) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "/bin/sh", "-c", string(s))
}

type text string

func (s text) WriteTar(w io.Writer) error {
	_, err := io.WriteString(w, string(s))
	return err
}

var digest = strings.Repeat("ab", 32)

func TestUUID(t *testing.T) {
	if got, want := UUID(digest, 0), "abababab-abab-4bab-abab-abababababab"; got != want {
		t.Errorf("UUID %s, want %s", got, want)
	}
	defer func() {
		if recover() == nil {
			t.Error("a digest that is none was accepted")
		}
	}()
	UUID("xyz", 0)
}

func TestVerityReadsTheRootHash(t *testing.T) {
	file := filepath.Join(t.TempDir(), "verity")
	hash := strings.Repeat("0f", 32)
	got, err := Verity(t.Context(), said("echo 'Salt: 00'; echo 'Root hash:      "+hash+"'; : > "+file), "image", file, digest)
	if err != nil || got != hash {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := Verity(t.Context(), said("echo nothing of use"), "image", file, digest); err == nil {
		t.Error("no root hash and no error")
	}
}

func TestFailureSaysWhy(t *testing.T) {
	err := Build(t.Context(), said("cat >/dev/null; echo disk full >&2; exit 1"), Default, text("tar"), digest, "x", 1)
	if err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("error %v does not carry the tool's words", err)
	}
	if err := Build(t.Context(), said("cat >/dev/null"), Default, text("tar"), digest, "x", 1); err != nil {
		t.Error(err)
	}
}
