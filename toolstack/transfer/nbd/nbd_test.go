package nbd_test

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/disk/disktest"
	"cairn/toolstack/transfer/nbd"
	"cairn/toolstack/transfer/nbd/nbdtest"
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pair is the two ends of a connection with buffers, as a socket has.
func pair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	must(t, err)
	defer l.Close()
	a, err = net.Dial("unix", l.Addr().String())
	must(t, err)
	b, err = l.Accept()
	must(t, err)
	return a, b
}

// lend opens an export of a server of this process; served has how it ended.
func lend(t testing.TB, e nbdtest.Export, contexts ...string) (c *nbd.Client, served chan error) {
	t.Helper()
	a, b := pair(t)
	served = make(chan error, 1)
	go func() {
		defer b.Close()
		served <- nbdtest.Serve(b, e)
	}()
	c, err := nbd.New(t.Context(), a, e.Name, contexts...)
	must(t, err)
	return c, served
}

func TestKeepsWhatDisksKeep(t *testing.T) {
	for name, e := range map[string]nbdtest.Export{
		"structured": {}, "in pieces": {Pieces: 4096, Name: "a name"}, "plain": {Plain: true},
	} {
		t.Run(name, func(t *testing.T) {
			m := disktest.New(5<<20 + 512)
			e.Device = m
			c, served := lend(t, e)
			disktest.Keeps(t, c)
			if m.Flushed() != 1 {
				t.Errorf("flushed %d times", m.Flushed())
			}
			must(t, c.Close())
			must(t, <-served)
		})
	}
}

// TestLarge: requests are cut to what a server takes, and answers about petabytes come
// in as many parts as it takes.
func TestLarge(t *testing.T) {
	m := disktest.New(5 << 40)
	c, _ := lend(t, nbdtest.Export{Device: m})
	defer c.Close()
	b := bytes.Repeat([]byte("cairn"), 1<<20)
	_, err := c.WriteAt(b, 3<<40-7)
	must(t, err)
	got := make([]byte, len(b))
	_, err = c.ReadAt(got, 3<<40-7)
	if err != nil || !bytes.Equal(got, b) {
		t.Error("what was written reads as something else", err)
	}
	var data int64
	for e, err := range disk.Part(t.Context(), c, 3<<40-8<<30, 16<<30) {
		must(t, err)
		if !e.Zero {
			data += e.Len
		}
	}
	if data < 5<<20 || data > 6<<20 {
		t.Errorf("%d bytes are data", data)
	}
	must(t, c.Zero(3<<40-3<<30, 6<<30))
	if m.Held() != 0 {
		t.Errorf("%d bytes are held after all was zeroed", m.Held())
	}
}

func TestContexts(t *testing.T) {
	depth := func(off, n int64) []nbdtest.Run {
		return []nbdtest.Run{{Len: 4096, Flags: 1}, {Len: 8192, Flags: 2}} // less than was asked for
	}
	e := nbdtest.Export{Device: disktest.New(1 << 20), Status: map[string]func(int64, int64) []nbdtest.Run{nbd.Depth: depth}}
	c, _ := lend(t, e, nbd.Depth, nbd.DirtyBitmap+"b")
	defer c.Close()
	if !c.Knows(nbd.Depth) || c.Knows(nbd.DirtyBitmap+"b") {
		t.Error("contexts")
	}
	got, err := c.Status(t.Context(), nbd.Depth, 0, 16384)
	want := []nbd.Status{{Off: 0, Len: 4096, Flags: 1}, {Off: 4096, Len: 8192, Flags: 2}, {Off: 12288, Len: 4096, Flags: 1}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := c.Status(t.Context(), nbd.DirtyBitmap+"b", 0, 1); err == nil {
		t.Error("an unknown context is answered for")
	}
}

func TestErrorsAreNamed(t *testing.T) {
	for _, plain := range []bool{false, true} {
		m := disktest.New(1 << 20)
		m.Fail = func(what string, off int64) error {
			if off == 4096 {
				return errors.New("the disk is on fire")
			}
			return nil
		}
		c, _ := lend(t, nbdtest.Export{Device: m, Plain: plain})
		_, err := c.ReadAt(make([]byte, 512), 4096)
		if !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "read 512 bytes at 4096") || !plain && !strings.Contains(err.Error(), "on fire") {
			t.Errorf("%v", err)
		}
		if _, err := c.ReadAt(make([]byte, 512), 8192); err != nil {
			t.Error("an error ends the connection:", err)
		}
		must(t, c.Close())
		if _, err := c.ReadAt(make([]byte, 512), 8192); err == nil {
			t.Error("a closed disk reads")
		}
	}
	c, _ := lend(t, nbdtest.Export{Device: disktest.New(1 << 20), ReadOnly: true})
	defer c.Close()
	if _, err := c.WriteAt(make([]byte, 1), 0); err == nil || !c.ReadOnly() || c.Zero(0, 1) == nil {
		t.Error("a read-only disk is written to")
	}
}

func TestRefusedExport(t *testing.T) {
	a, b := pair(t)
	go nbdtest.Serve(b, nbdtest.Export{Name: "other", Device: disktest.New(1 << 20)})
	if _, err := nbd.New(t.Context(), a, "mine"); err == nil || !strings.Contains(err.Error(), `export "mine": the server answers that there is no such export`) {
		t.Error(err)
	}
	a, b = pair(t)
	b.Write([]byte("SSH-2.0-OpenSSH_10.0p2"))
	if _, err := nbd.New(t.Context(), a, ""); !errors.Is(err, nbd.ErrProtocol) {
		t.Error(err)
	}
	a, b = pair(t)
	b.Close()
	if _, err := nbd.New(t.Context(), a, ""); !errors.Is(err, nbd.ErrGone) {
		t.Error(err)
	}
}

// TestEnds: calls that wait fail when the server goes or the context ends.
func TestEnds(t *testing.T) {
	began, stay := make(chan bool, 1), make(chan bool)
	defer close(stay)
	m := disktest.New(1 << 20)
	m.Fail = func(string, int64) error {
		began <- true
		<-stay
		return nil
	}
	a, b := pair(t)
	go nbdtest.Serve(b, nbdtest.Export{Device: m})
	ctx, cancel := context.WithCancelCause(t.Context())
	c, err := nbd.New(ctx, a, "")
	must(t, err)
	ended := make(chan error)
	go func() {
		_, err := c.ReadAt(make([]byte, 512), 0)
		ended <- err
	}()
	<-began
	why := errors.New("the task was cancelled")
	cancel(why)
	if err := <-ended; !errors.Is(err, why) {
		t.Error(err)
	}
	c.Close()
	if _, err := c.WriteAt(make([]byte, 1), 0); !errors.Is(err, why) {
		t.Error(err)
	}
}

func BenchmarkRead(b *testing.B) {
	m := disktest.New(64 << 20)
	buf := make([]byte, 16<<20)
	r := rand.NewChaCha8([32]byte{})
	r.Read(buf)
	for at := int64(0); at < 64<<20; at += int64(len(buf)) {
		m.WriteAt(buf, at)
	}
	c, _ := lend(b, nbdtest.Export{Device: m})
	defer c.Close()
	b.SetBytes(int64(len(buf)))
	for i := range b.N {
		c.ReadAt(buf, int64(i%4)*int64(len(buf)))
	}
}
