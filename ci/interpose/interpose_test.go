package interpose

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
)

// heard is a gate that writes down what it hears and closes at one moment.
type heard struct {
	mu   sync.Mutex
	all  []string
	shut string
}

func (h *heard) gate(s Step, m Moment) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	text := fmt.Sprintf("%s %s", m, s)
	h.all = append(h.all, text)
	return text != h.shut
}

func (h *heard) is(t *testing.T, want ...string) {
	t.Helper()
	h.mu.Lock()
	defer h.mu.Unlock()
	if !slices.Equal(h.all, want) {
		t.Errorf("heard %q, want %q", h.all, want)
	}
}

func TestVerb(t *testing.T) {
	for _, c := range []struct{ method, path, want string }{
		{"GET", "/v1/version", "GET version"},
		{"PUT", "/v1/ports/cv0123", "PUT ports"},
		{"POST", "/v1/repositories/0ab7/volumes/vol/activate", "POST repositories volumes activate"},
		{"DELETE", "/v1/repositories/0ab7/volumes/vol", "DELETE repositories volumes"},
	} {
		if got := verb(c.method, c.path); got != c.want {
			t.Errorf("%s %s is %q, want %q", c.method, c.path, got, c.want)
		}
	}
}

func TestHTTP(t *testing.T) {
	dir := t.TempDir()
	target, path := filepath.Join(dir, "real"), filepath.Join(dir, "own")
	l, err := net.Listen("unix", target)
	if err != nil {
		t.Fatal(err)
	}
	served := 0
	daemon := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served++
		body, _ := io.ReadAll(r.Body)
		w.WriteHeader(http.StatusTeapot)
		fmt.Fprintf(w, "%s %s", r.URL.Path, body)
	})}
	go daemon.Serve(l)
	defer daemon.Close()
	for _, c := range []struct {
		shut   string
		served int
		heard  []string
	}{
		{"", 1, []string{"before hostd PUT ports", "during hostd PUT ports", "after hostd PUT ports"}},
		{"before hostd PUT ports", 0, []string{"before hostd PUT ports"}},
		{"after hostd PUT ports", 1, []string{"before hostd PUT ports", "during hostd PUT ports", "after hostd PUT ports"}},
	} {
		served = 0
		h := &heard{shut: c.shut}
		p, err := HTTP("hostd", path, target, h.gate)
		if err != nil {
			t.Fatal(err)
		}
		asker := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		}}}
		r, _ := http.NewRequest(http.MethodPut, "http://hostd/v1/ports/x", strings.NewReader("body"))
		resp, err := asker.Do(r)
		if (err == nil) != (c.shut == "") || served != c.served {
			t.Errorf("shut %q: %v, served %d", c.shut, err, served)
		}
		if err == nil {
			text, _ := io.ReadAll(resp.Body)
			resp.Body.Close()
			if string(text) != "/v1/ports/x body" || resp.StatusCode != http.StatusTeapot {
				t.Errorf("%d: %s", resp.StatusCode, text)
			}
		}
		h.is(t, c.heard...)
		p.Close()
		asker.CloseIdleConnections()
	}
}

// words is a message of the protocol with a header and a body.
func words(procedure, kind uint32, body string) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(headerBytes+len(body)))
	for _, w := range []uint32{program, 1, procedure, kind, 7, 0} {
		b = binary.BigEndian.AppendUint32(b, w)
	}
	return append(b, body...)
}

func TestLibvirt(t *testing.T) {
	dir := t.TempDir()
	target, path := filepath.Join(dir, "real"), filepath.Join(dir, "own")
	l, err := net.Listen("unix", target)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	call, reply, event := words(10, typeCall, "<domain/>"), words(10, typeReply, "ok"), words(318, typeEvent, "started")
	h := &heard{shut: "after libvirtd event life-cycle"}
	p, err := Libvirt("libvirtd", path, target, h.gate)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	asker, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer asker.Close()
	daemon, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	pass := func(from, to net.Conn, b []byte) {
		t.Helper()
		got := make([]byte, len(b))
		_, werr := from.Write(b)
		_, rerr := io.ReadFull(to, got)
		if werr != nil || rerr != nil || !bytes.Equal(got, b) {
			t.Fatalf("%v, %v, %q", werr, rerr, got)
		}
	}
	pass(asker, daemon, call)
	pass(daemon, asker, reply)
	if _, err := daemon.Write(event); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(asker); err != nil || len(rest) > 0 {
		t.Errorf("%q, %v after the end", rest, err)
	}
	h.is(t, "before libvirtd create", "during libvirtd create", "after libvirtd create", "after libvirtd event life-cycle")
}

func FuzzMessage(f *testing.F) {
	f.Add(words(10, typeCall, "body"))
	f.Add([]byte{0, 0, 0, 4})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, h, err := message(io.LimitReader(bytes.NewReader(b), 1<<16))
		if err == nil && (!bytes.HasPrefix(b, got) || h.name() == "") {
			t.Errorf("%q read as %q", b, got)
		}
	})
}
