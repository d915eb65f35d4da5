package etcd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/db"
)

// Nothing is worth a warning at a first start, a second one or a stop.
func TestStartsAreQuiet(t *testing.T) {
	var text bytes.Buffer
	c := Config{Dir: filepath.Join(t.TempDir(), "db"), Log: slog.New(slog.NewTextHandler(&text, nil))}
	for i := range 3 {
		e, err := Open(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		if err := e.Commit(t.Context(), put("obj/VM/one", i)); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if text.Len() > 0 {
		t.Error(text.String())
	}
}

// An interrupted first start, whatever it left, is begun anew.
func TestInterruptedFirstStart(t *testing.T) {
	dir := t.TempDir()
	for _, f := range []string{firstStart, "member/wal/0000000000000000-0000000000000000.wal", "member/snap/db"} {
		p := filepath.Join(dir, f)
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, bytes.Repeat([]byte{7}, 100), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	e := openIn(t, dir)
	defer e.Close()
	if err := e.Commit(t.Context(), put("obj/VM/one", 1)); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join(dir, firstStart)); err == nil {
		t.Error("the next start would begin anew again")
	}
}

// Damage is an error that names the directory; what is there stays.
func TestDamageIsRefused(t *testing.T) {
	dir := t.TempDir()
	e := openIn(t, dir)
	if err := e.Commit(t.Context(), db.Batch{Puts: put("obj/VM/one", 5000).Puts}); err != nil {
		t.Fatal(err)
	}
	e.Close()
	logs, err := filepath.Glob(filepath.Join(dir, "member", "wal", "*.wal"))
	if err != nil || len(logs) != 1 {
		t.Fatal(logs, err)
	}
	text, err := os.ReadFile(logs[0])
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(text, bytes.Repeat([]byte{'v'}, 100))
	text[at+50] ^= 1
	if err := os.WriteFile(logs[0], text, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("open: %v", err)
	}
	after, err := os.ReadFile(logs[0])
	if err != nil || !bytes.Equal(after, text) {
		t.Error("the damaged log was changed")
	}
}

// A directory serves one process; the second is told so, and gets it when the
// first has ended.
func TestOneProcessOnly(t *testing.T) {
	dir := t.TempDir()
	e := openIn(t, dir)
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, ErrInUse)
	defer cancel()
	if second, err := Open(ctx, Config{Dir: dir}); !errors.Is(err, ErrInUse) {
		t.Errorf("a second engine: %v, %v", second, err)
	}
	e.Close()
	openIn(t, dir).Close()
}
