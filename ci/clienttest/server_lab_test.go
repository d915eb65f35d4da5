//go:build lab

package clienttest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/session/identity"
	"cairn/toolstack/wire"
	"cairn/toolstack/wire/wiretest"
)

// simulated starts toolstackd with a simulated pool, whose root has wiretest's
// password, and answers its URL.
func simulated(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "toolstackd")
	run(t, "../..", "go", "build", "-tags", "sim", "-o", program, "./toolstack/cmd/toolstackd")
	child := exec.CommandContext(t.Context(), program, "-listen", "127.0.0.1:0", "-db", "memory", "-state", dir,
		"-sim-hosts", "2", "-sim-vms", "20", "-sim-password", wiretest.Password)
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		child.Process.Kill()
		child.Wait()
	})
	address := make(chan string, 1)
	go announced(out, address)
	select {
	case a := <-address:
		return "https://" + a
	case <-time.After(patience):
		t.Fatal("toolstackd does not answer")
	}
	return ""
}

// announced reads a log to its end and tells the address it names.
func announced(log io.Reader, address chan<- string) {
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if _, rest, ok := strings.Cut(lines.Text(), " api-ready addr="); ok {
			a, _, _ := strings.Cut(rest, " ")
			address <- a
		}
	}
}

// transfers serves a pool that has nothing but an upload and a download, as
// imports and exports are, over TLS.
func transfers(t *testing.T) string {
	t.Helper()
	s := wiretest.New(t, func(_ *api.Registry, d *db.DB) {
		err := d.Update(t.Context(), func(tx *db.Tx) error {
			host, pool := api.NewHost(), api.NewPool()
			host.Address = "127.0.0.1"
			pool.Master = db.Insert(tx, host)
			db.Insert(tx, pool)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
	s.Wire.Transfer("PUT", "/import", upload)
	s.Wire.Transfer("GET", "/export", download)
	cfg, _, err := identity.Load(t.TempDir(), identity.Options{Names: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := wire.NewHTTPServer(s.Wire, cfg, journal.Discard())
	go server.ServeTLS(l, "", "")
	t.Cleanup(func() { server.Close() })
	return "https://" + l.Addr().String()
}

// upload answers before it reads, which clients that do not know how much they
// send wait for; those hang up when they are done.
func upload(w http.ResponseWriter, r *wire.Request) error {
	w.WriteHeader(http.StatusOK)
	if err := http.NewResponseController(w).Flush(); err != nil {
		return err
	}
	n, err := io.Copy(io.Discard, r.Body)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	r.Result = api.StringResult(fmt.Sprint(n))
	return err
}

func download(w http.ResponseWriter, r *wire.Request) error {
	const pieces = 3
	for i := range pieces {
		r.Task.Set(float64(i) / pieces)
		if _, err := w.Write(make([]byte, 100000)); err != nil {
			return err
		}
	}
	return nil
}
