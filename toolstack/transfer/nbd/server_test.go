package nbd_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"cairn/toolstack/session/identity"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/disk/disktest"
	"cairn/toolstack/transfer/nbd"
)

// library lends out one disk under one name.
type library struct {
	*nbd.Server
	disk *disktest.Memory

	mu     sync.Mutex
	opened int
	alive  error
}

func newLibrary(m *disktest.Memory) *library {
	l := &library{disk: m}
	l.Server = &nbd.Server{Open: func(_ context.Context, name string) (nbd.Export, error) {
		if name != "/disk" {
			return nbd.Export{}, errors.New("no such disk")
		}
		l.mu.Lock()
		defer l.mu.Unlock()
		l.opened++
		return nbd.Export{Disk: counted{m, l}, Alive: func() error { return l.alive }}, nil
	}}
	return l
}

// admit has clients speak TLS, or talk in clear.
func (l *library) admit(config *tls.Config) {
	l.Admit = func(net.Conn) (*tls.Config, error) { return config, nil }
}

// counted counts what is not closed.
type counted struct {
	disk.Device
	l *library
}

func (c counted) Close() error {
	c.l.mu.Lock()
	defer c.l.mu.Unlock()
	c.l.opened--
	return nil
}

// reader is a client's end, and how the server's ends.
func (l *library) reader(t testing.TB) (net.Conn, chan error) {
	t.Helper()
	a, b := pair(t)
	ended := make(chan error, 1)
	go func() { ended <- l.Lend(t.Context(), b) }()
	return a, ended
}

func filled(size int64) *disktest.Memory {
	m := disktest.New(size)
	r := rand.New(rand.NewPCG(1, 2))
	for at := int64(0); at < size; at += 3 * disktest.Block {
		b := make([]byte, min(disktest.Block, size-at))
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		if _, err := m.WriteAt(b, at); err != nil {
			panic(err)
		}
	}
	return m
}

// What a client reads is the disk, and what it cannot do changes nothing.
func TestLend(t *testing.T) {
	m := filled(9<<20 + 512)
	l := newLibrary(m)
	a, ended := l.reader(t)
	c, err := nbd.New(t.Context(), a, "/disk")
	must(t, err)
	if c.Size() != m.Size() {
		t.Errorf("%d bytes", c.Size())
	}
	got := make([]byte, m.Size())
	_, err = c.ReadAt(got, 0)
	must(t, err)
	if !bytes.Equal(got, m.Bytes()) {
		t.Error("it reads as something else")
	}
	var want, have []disk.Extent
	for e, err := range disk.All(t.Context(), m) {
		must(t, err)
		want = disk.Append(want, e)
	}
	for e, err := range disk.All(t.Context(), c) {
		must(t, err)
		have = disk.Append(have, e)
	}
	if len(have) < 10 || len(have) != len(want) {
		t.Errorf("%d extents, want %d", len(have), len(want))
	}
	for i, e := range have {
		if e != want[i] {
			t.Fatalf("extent %+v, want %+v", e, want[i])
		}
	}
	for what, err := range map[string]error{"write": second(c.WriteAt([]byte("x"), 0)), "zero": c.Zero(0, 512)} {
		if err == nil {
			t.Errorf("%s: it is done", what)
		}
	}
	must(t, c.Flush())
	must(t, c.Close())
	if err := <-ended; err != nil || l.opened != 0 {
		t.Errorf("the server ended with %v, %d disks are open", err, l.opened)
	}
}

func second(_ int, err error) error { return err }

// Requests of one client are answered side by side, and those of many.
func TestLendToMany(t *testing.T) {
	m := filled(4 << 20)
	l := newLibrary(m)
	all := m.Bytes()
	var clients sync.WaitGroup
	for seed := range uint64(4) {
		a, _ := l.reader(t)
		c, err := nbd.New(t.Context(), a, "/disk")
		must(t, err)
		for part := range uint64(6) {
			clients.Go(func() {
				r := rand.New(rand.NewPCG(seed, part))
				for range 20 {
					off := r.Int64N(m.Size())
					b := make([]byte, 1+r.Int64N(m.Size()-off))
					if _, err := c.ReadAt(b, off); err != nil || !bytes.Equal(b, all[off:off+int64(len(b))]) {
						t.Errorf("%d bytes at %d: %v", len(b), off, err)
					}
				}
			})
		}
	}
	clients.Wait()
}

func TestNoExport(t *testing.T) {
	l := newLibrary(filled(1 << 20))
	a, ended := l.reader(t)
	if _, err := nbd.New(t.Context(), a, "/other"); err == nil {
		t.Error("another disk was opened")
	}
	if err := <-ended; err == nil || l.opened != 0 {
		t.Errorf("the server ended with %v", err)
	}
}

// A disk that fails is an error of the request; a client whose session is no more is
// let go.
func TestLendFailing(t *testing.T) {
	m := filled(1 << 20)
	l := newLibrary(m)
	a, ended := l.reader(t)
	c, err := nbd.New(t.Context(), a, "/disk")
	must(t, err)
	b := make([]byte, 512)
	m.Fail = func(what string, _ int64) error { return syscall.EIO }
	if _, err := c.ReadAt(b, 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("read: %v", err)
	}
	if _, err := c.Extents(t.Context(), 0, 512); !errors.Is(err, syscall.EIO) {
		t.Errorf("extents: %v", err)
	}
	m.Fail = nil
	_, err = c.ReadAt(b, 0)
	must(t, err)
	must(t, c.Close())
	must(t, <-ended)

	a, ended = l.reader(t)
	c, err = nbd.New(t.Context(), a, "/disk")
	must(t, err)
	l.alive = errors.New("logged out")
	if _, err := c.ReadAt(b, 0); err == nil {
		t.Error("a client without a session reads")
	}
	if err := <-ended; !errors.Is(err, l.alive) || l.opened != 0 {
		t.Errorf("the server ended with %v", err)
	}
}

// Nothing is asked before TLS but that, and nothing said before counts after it.
func TestTLSFirst(t *testing.T) {
	config, id, err := identity.Load(t.TempDir(), identity.Options{Names: []string{"localhost"}})
	must(t, err)
	l := newLibrary(filled(1 << 20))
	l.admit(config)
	a, ended := l.reader(t)
	if _, err := nbd.New(t.Context(), a, "/disk"); err == nil {
		t.Error("a disk was opened in clear")
	}
	<-ended

	a, ended = l.reader(t)
	greet(t, a)
	if kind := ask(t, a, 8, nil); kind != 1<<31|5 {
		t.Errorf("structured replies in clear: %#x", kind)
	}
	if kind := ask(t, a, 5, []byte("x")); kind != 1<<31|3 {
		t.Errorf("TLS with data: %#x", kind)
	}
	if kind := ask(t, a, 5, nil); kind != 1 {
		t.Fatalf("TLS: %#x", kind)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(id.CAPEM)
	secret := tls.Client(a, &tls.Config{RootCAs: pool, ServerName: "localhost"})
	if kind := ask(t, secret, 5, nil); kind != 1<<31|3 {
		t.Errorf("TLS in TLS: %#x", kind)
	}
	if kind := ask(t, secret, 3, nil); kind != 1<<31|2 {
		t.Errorf("list: %#x", kind)
	}
	if kind := ask(t, secret, 99, nil); kind != 1<<31|1 {
		t.Errorf("an unknown option: %#x", kind)
	}
	if kind := ask(t, secret, 2, nil); kind != 1 {
		t.Errorf("abort: %#x", kind)
	}
	must(t, <-ended)

	a, ended = l.reader(t)
	c, err := nbd.Secure(t.Context(), a, &tls.Config{RootCAs: pool, ServerName: "localhost"}, "/disk")
	must(t, err)
	got := make([]byte, 1<<20)
	_, err = c.ReadAt(got, 0)
	must(t, err)
	if !bytes.Equal(got, l.disk.Bytes()) {
		t.Error("it reads as something else")
	}
	must(t, c.Close())
	must(t, <-ended)

	a, ended = l.reader(t)
	if _, err := nbd.Secure(t.Context(), a, &tls.Config{RootCAs: pool, ServerName: "elsewhere"}, "/disk"); err == nil {
		t.Error("a disk was opened at a server of another name")
	}
	<-ended
	l.admit(nil)
	a, ended = l.reader(t)
	if _, err := nbd.Secure(t.Context(), a, &tls.Config{RootCAs: pool, ServerName: "localhost"}, "/disk"); err == nil {
		t.Error("a disk was opened in clear by one who asked for TLS")
	}
	<-ended
}

func greet(t testing.TB, c net.Conn) {
	t.Helper()
	var hello [18]byte
	_, err := io.ReadFull(c, hello[:])
	must(t, err)
	_, err = c.Write([]byte{0, 0, 0, 3})
	must(t, err)
}

// ask sends an option and returns the kind of the answer.
func ask(t testing.TB, c net.Conn, option uint32, data []byte) uint32 {
	t.Helper()
	b := append([]byte("IHAVEOPT"), binary.BigEndian.AppendUint32(nil, option)...)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	_, err := c.Write(append(b, data...))
	must(t, err)
	var h [20]byte
	_, err = io.ReadFull(c, h[:])
	must(t, err)
	_, err = io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(h[16:])))
	must(t, err)
	return binary.BigEndian.Uint32(h[12:])
}

// A client that is one too many is sent away, one that says nothing does not stay, and
// a server that ends lets all go.
func TestServe(t *testing.T) {
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	l := newLibrary(filled(1 << 20))
	l.Most, l.Idle = 1, time.Minute
	ended := make(chan error, 1)
	go func() { ended <- l.Serve(ctx, lis) }()
	dial := func() net.Conn {
		t.Helper()
		c, err := net.Dial("tcp", lis.Addr().String())
		must(t, err)
		return c
	}
	c, err := nbd.New(t.Context(), dial(), "/disk")
	must(t, err)
	if _, err := nbd.New(t.Context(), dial(), "/disk"); err == nil {
		t.Error("one too many")
	}
	b := make([]byte, 512)
	_, err = c.ReadAt(b, 0)
	must(t, err)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) || l.opened != 0 {
		t.Errorf("ended with %v, %d disks are open", err, l.opened)
	}
	if _, err := c.ReadAt(b, 0); err == nil {
		t.Error("a server that ended answers")
	}
}

func TestSilentClient(t *testing.T) {
	l := newLibrary(filled(1 << 20))
	l.Idle = 20 * time.Millisecond
	a, ended := l.reader(t)
	_, err := nbd.New(t.Context(), a, "/disk")
	must(t, err)
	var late net.Error
	if err := <-ended; !errors.As(err, &late) || !late.Timeout() {
		t.Errorf("ended with %v", err)
	}
}

// Whatever a client sends, the server answers within bounds and lets everything go.
func FuzzServer(f *testing.F) {
	open := append([]byte{0, 0, 0, 3}, "IHAVEOPT\x00\x00\x00\x08\x00\x00\x00\x00"...)
	open = append(open, "IHAVEOPT\x00\x00\x00\x07\x00\x00\x00\x0b\x00\x00\x00\x05/disk\x00\x00"...)
	read := append(bytes.Clone(open), "\x25\x60\x95\x13\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x02\x00\x00\x00\x02\x00"...)
	f.Add(open)
	f.Add(read)
	f.Add(append([]byte{0, 0, 0, 1}, "IHAVEOPT\x00\x00\x00\x0a\x00\x00\x00\x20\x00\x00\x00\x05/disk\x00\x00\x00\x01\x00\x00\x00\x0fbase:allocation"...))
	f.Add(append([]byte{0, 0, 0, 1}, "IHAVEOPT\x00\x00\x00\x01\x00\x00\x00\x05/disk"...))
	l := newLibrary(filled(1 << 20))
	f.Fuzz(func(t *testing.T, sent []byte) {
		a, b := net.Pipe()
		ended := make(chan error, 1)
		go func() { ended <- l.Lend(t.Context(), b) }()
		go func() {
			a.Write(sent)
			a.Close()
		}()
		n, _ := io.Copy(io.Discard, io.LimitReader(a, 1<<30))
		a.Close()
		<-ended
		if n > int64(len(sent)+64)*(2<<20) || l.opened != 0 {
			t.Errorf("%d bytes are answered to %d, %d disks are open", n, len(sent), l.opened)
		}
	})
}
