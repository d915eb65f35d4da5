package hostd

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"

	"cairn/init/hostd/client"
	"cairn/init/storage/tool"
)

// lender is the programs of the machine of a test: one that lends out an image says
// what the borrower says, until that is "fail".
type lender struct{}

func (lender) Run(ctx context.Context, c tool.Command) ([]byte, error) {
	if len(c.Files) == 0 {
		return nil, errors.New(c.Name + " is not here")
	}
	l, err := net.FileListener(c.Files[0])
	if err != nil {
		return nil, err
	}
	defer l.Close()
	conn, err := l.Accept()
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	b := make([]byte, 64)
	for {
		n, err := conn.Read(b)
		switch {
		case errors.Is(err, io.EOF), ctx.Err() != nil:
			return nil, nil // as the real one ends that is told to
		case err != nil:
			return nil, err
		case string(b[:n]) == "fail":
			return nil, &tool.Failure{Name: c.Name, Code: 1, Stderr: "No space left on device"}
		}
		if _, err := conn.Write(b[:n]); err != nil {
			return nil, err
		}
	}
}

// TestExportVerb lends out a volume through a real hostd.
func TestExportVerb(t *testing.T) {
	l := newLab(t)
	must(t, os.MkdirAll(l.dir+"/iso/lib", 0o755))
	must(t, os.WriteFile(l.dir+"/iso/lib/a.iso", []byte("disc"), 0o644))
	l.start()
	ctx, c := t.Context(), l.client
	_, err := c.ExportVolume(ctx, testSR, "a.iso", client.ExportRequest{})
	if code(err) != client.CodeNotAttached {
		t.Errorf("not attached: %v", err)
	}
	_, err = c.AttachRepository(ctx, testSR, client.RepositoryConfig{Type: client.TypeISO, Config: map[string]string{"location": l.dir + "/iso/lib", "legacy_mode": "true"}})
	must(t, err)
	say := func(v *client.Lent, word string) {
		t.Helper()
		b := make([]byte, 64)
		if _, err := v.Write([]byte(word)); err != nil {
			t.Fatal(err)
		}
		if n, err := v.Read(b); err != nil || string(b[:n]) != word {
			t.Fatalf("%q, %v", b[:n], err)
		}
	}
	begun, cancel := context.WithCancel(ctx)
	v, err := c.ExportVolume(begun, testSR, "a.iso", client.ExportRequest{})
	must(t, err)
	cancel() // who opened it is not who reads it
	say(v, "hello")
	if strings.Join(v.Layers, " ") != "a.iso" {
		t.Errorf("layers %v", v.Layers)
	}
	if err := c.DetachRepository(ctx, testSR); code(err) != client.CodeInUse {
		t.Errorf("detach of a repository that is read: %v", err)
	}
	must(t, v.Close())
	must(t, v.Close())
	v, err = c.ExportVolume(ctx, testSR, "a.iso", client.ExportRequest{})
	must(t, err)
	if _, err := v.Write([]byte("fail")); err != nil {
		t.Error(err)
	}
	if _, err := v.Read(make([]byte, 1)); err == nil {
		t.Error("a program that failed answers")
	}
	if err := v.Close(); code(err) != client.CodeNoSpace {
		t.Errorf("a program that failed: %v", err)
	}
	l.logged("export-ended", "a.iso")
	if _, err := c.ExportVolume(ctx, testSR, "a.iso", client.ExportRequest{Writable: true}); code(err) != client.CodeUnsupported {
		t.Errorf("for writing: %v", err)
	}
	// What is lent out ends with hostd.
	v, err = c.ExportVolume(ctx, testSR, "a.iso", client.ExportRequest{})
	must(t, err)
	say(v, "hello")
	l.kill()
	if _, err := v.Read(make([]byte, 1)); err == nil {
		t.Error("it is lent out without hostd")
	}
	if err := v.Close(); err == nil {
		t.Error("hostd was killed, and the end is a good one")
	}
}
