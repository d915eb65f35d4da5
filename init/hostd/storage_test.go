package hostd

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"cairn/init/hostd/client"
	"cairn/init/hostd/job"
)

const testSR = "0ab7a2c5-1c8c-4f2b-9c7a-00000000000a"

func code(err error) string {
	var e *client.Error
	if !errors.As(err, &e) {
		return ""
	}
	return e.Code
}

// TestStorageVerbs calls every verb through a real hostd, on volumes without bytes.
func TestStorageVerbs(t *testing.T) {
	l := newLab(t)
	l.start()
	ctx, c := t.Context(), l.client
	config := client.RepositoryConfig{Type: client.TypeDummy, Config: map[string]string{client.DummyConfigKey: "1073741824"}}
	_, err := c.Volumes(ctx, testSR)
	if code(err) != client.CodeNotAttached {
		t.Errorf("not attached: %v", err)
	}
	_, err = c.FormatRepository(ctx, testSR, config)
	must(t, err)
	r, err := c.AttachRepository(ctx, testSR, config)
	must(t, err)
	if r.UUID != testSR || r.Free != 1<<30 || r.Type != client.TypeDummy {
		t.Errorf("%+v", r)
	}
	v, err := c.CreateVolume(ctx, testSR, "base", client.VolumeSpec{Size: 1 << 20, Format: client.Qcow2, Note: "n"})
	must(t, err)
	if v.Name != "base" || v.VirtualSize != 1<<20 || v.Note != "n" {
		t.Errorf("%+v", v)
	}
	_, err = c.CreateVolume(ctx, testSR, "top", client.VolumeSpec{Format: client.Qcow2, Backing: "base"})
	must(t, err)
	_, err = c.ResizeVolume(ctx, testSR, "top", 2<<20)
	must(t, err)
	v, err = c.ActivateVolume(ctx, testSR, "top")
	must(t, err)
	if !v.Active || v.VirtualSize != 2<<20 {
		t.Errorf("%+v", v)
	}
	if err := c.DetachRepository(ctx, testSR); code(err) != client.CodeInUse {
		t.Errorf("detach with an active volume: %v", err)
	}
	_, err = c.DeactivateVolume(ctx, testSR, "top")
	must(t, err)
	must(t, c.CommitVolume(ctx, testSR, "top", nil))
	if _, err := c.CheckVolume(ctx, testSR, "top"); err != nil {
		t.Error(err)
	}
	if err := c.CopyVolume(ctx, testSR, "top", testSR, "copy", nil); code(err) != client.CodeUnsupported {
		t.Errorf("copy of no bytes: %v", err)
	}
	must(t, c.NoteVolume(ctx, testSR, "top", "other"))
	must(t, c.RebaseVolume(ctx, testSR, "top", "base"))
	if v, err = c.Volume(ctx, testSR, "top"); err != nil || v.Note != "other" || v.Backing != "base" {
		t.Errorf("%+v, %v", v, err)
	}
	if err := c.DeleteVolume(ctx, testSR, "base"); code(err) != client.CodeConflict {
		t.Errorf("delete of a backing: %v", err)
	}
	must(t, c.DeleteVolume(ctx, testSR, "top"))
	list, err := c.Volumes(ctx, testSR)
	if err != nil || len(list) != 1 || list[0].Name != "base" {
		t.Errorf("%+v, %v", list, err)
	}
	must(t, c.DetachRepository(ctx, testSR))
	must(t, c.EraseRepository(ctx, testSR, config))
}

// TestRepositorySurvivesRestart: a killed hostd's repositories are attached again,
// and what others left half made is removed.
func TestRepositorySurvivesRestart(t *testing.T) {
	l := newLab(t)
	must(t, os.Mkdir(l.dir+"/sr", 0o755))
	l.start()
	config := client.RepositoryConfig{Type: client.TypeFile, Config: map[string]string{"location": l.dir + "/sr/one"}}
	_, err := l.client.FormatRepository(t.Context(), testSR, config)
	must(t, err)
	_, err = l.client.AttachRepository(t.Context(), testSR, config)
	must(t, err)
	l.kill()
	must(t, os.WriteFile(filepath.Join(l.dir, "sr/one/.new-x.qcow2"), nil, 0o600))
	l.start()
	l.logged("half-made-removed", ".new-x.qcow2")
	r, err := l.client.Repository(t.Context(), testSR)
	if err != nil || r.Path != l.dir+"/sr/one" || r.Total == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	other := client.RepositoryConfig{Type: client.TypeDummy}
	if _, err := l.client.AttachRepository(t.Context(), testSR, other); code(err) != client.CodeConflict {
		t.Errorf("attached with another config: %v", err)
	}
	found, err := l.client.Probe(t.Context(), config)
	if err != nil || len(found) != 1 || found[0].UUID != testSR {
		t.Errorf("probe: %+v, %v", found, err)
	}
}

// TestChangedBlocks: what a layer holds, and logs of it, travel as bytes.
func TestChangedBlocks(t *testing.T) {
	l := newLab(t)
	must(t, os.Mkdir(l.dir+"/sr", 0o755))
	l.start()
	ctx, c := t.Context(), l.client
	config := client.RepositoryConfig{Type: client.TypeFile, Config: map[string]string{"location": l.dir + "/sr/one"}}
	_, err := c.FormatRepository(ctx, testSR, config)
	must(t, err)
	_, err = c.AttachRepository(ctx, testSR, config)
	must(t, err)
	must(t, os.WriteFile(l.dir+"/sr/one/disk.raw", make([]byte, 9*client.AllocationBlock), 0o600))
	a, err := c.Allocation(ctx, testSR, "disk")
	if err != nil || a.Size != 9*client.AllocationBlock || !bytes.Equal(a.Bits, []byte{0xff, 0x80}) {
		t.Errorf("allocation %+v, %v", a, err)
	}
	text := bytes.Repeat([]byte{0, 1, 2, 255}, 3<<20)
	must(t, c.WriteChangeLog(ctx, testSR, "one", text))
	if err := c.WriteChangeLog(ctx, testSR, "one", text); code(err) != client.CodeConflict {
		t.Errorf("written again: %v", err)
	}
	if err := c.WriteChangeLog(ctx, testSR, "two", make([]byte, client.MaxLog+1)); code(err) != client.CodeTooLarge {
		t.Errorf("too large: %v", err)
	}
	got, err := c.ReadChangeLog(ctx, testSR, "one")
	if err != nil || !bytes.Equal(got, text) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	list, err := c.ChangeLogs(ctx, testSR)
	if err != nil || len(list) != 1 || list[0].Name != "one" {
		t.Errorf("%+v, %v", list, err)
	}
	must(t, c.DeleteChangeLog(ctx, testSR, "one"))
	must(t, c.DeleteChangeLog(ctx, testSR, "one"))
	if _, err := c.ReadChangeLog(ctx, testSR, "one"); code(err) != client.CodeNotFound {
		t.Errorf("deleted: %v", err)
	}
}

// TestNonsense: nothing that a client sends to a storage verb harms hostd.
func TestNonsense(t *testing.T) {
	l := newLab(t)
	l.start()
	web := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", l.dir+"/hostd.sock")
	}}}
	defer web.CloseIdleConnections()
	for _, r := range []struct{ method, path, body string }{
		{"POST", "/v1/probe", "{"}, {"POST", "/v1/probe", `{"type":"nfs"}`}, {"POST", "/v1/probe", ""},
		{"POST", "/v1/repositories/x/attach", "[]"}, {"GET", "/v1/repositories/x", ""}, {"GET", "/v1/repositories/x/volumes", ""},
		{"PUT", "/v1/repositories/" + testSR + "/volumes/%2e%2e%2fx", "{}"}, {"PUT", "/v1/repositories/" + testSR + "/volumes/x", `{"size":"big"}`},
		{"GET", "/v1/jobs/x", ""}, {"GET", "/v1/jobs/x?after=y", ""}, {"DELETE", "/v1/jobs/x", ""},
		{"POST", "/v1/repositories/" + testSR + "/volumes/x/copy", "7"}, {"GET", "/v1/repositories/x/volumes/x/allocation", ""},
		{"PUT", "/v1/repositories/" + testSR + "/logs/%2e%2e%2fx", "x"}, {"GET", "/v1/repositories/x/logs", ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), r.method, "http://hostd"+r.path, strings.NewReader(r.body))
		must(t, err)
		resp, err := web.Do(req)
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode < 400 || resp.StatusCode == http.StatusInternalServerError {
			t.Errorf("%s %s %q: status %d", r.method, r.path, r.body, resp.StatusCode)
		}
	}
	if _, err := l.client.Version(t.Context()); err != nil {
		t.Error(err)
	}
}

// serveJobs is a hostd that has jobs and nothing else; each runs work.
func serveJobs(t *testing.T, work job.Work) (restart func(), c *client.Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "jobs")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	var current atomic.Pointer[http.ServeMux]
	restart = func() {
		h := &Host{Log: slog.New(slog.DiscardHandler), jobs: job.New(slog.New(slog.DiscardHandler))}
		t.Cleanup(h.jobs.Close)
		verbs, mux := http.NewServeMux(), http.NewServeMux()
		h.routeStorage(verbs)
		mux.Handle("/v1/jobs/", verbs)
		mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { h.startJob(w, r, "", work) })
		current.Store(mux)
	}
	restart()
	ln, err := net.Listen("unix", dir+"/s")
	must(t, err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { current.Load().ServeHTTP(w, r) })}
	go s.Serve(ln)
	t.Cleanup(func() { s.Close() })
	c = client.New(dir + "/s")
	t.Cleanup(c.Close)
	return restart, c
}

func TestProgressIsTold(t *testing.T) {
	next := make(chan bool)
	_, c := serveJobs(t, func(_ context.Context, progress func(float64)) (any, error) {
		for _, f := range []float64{0.25, 0.5, 0.75} {
			progress(f)
			<-next
		}
		return struct{}{}, nil
	})
	var seen []float64
	must(t, c.CommitVolume(t.Context(), testSR, "v", func(f float64) {
		if f > 0 && (len(seen) == 0 || seen[len(seen)-1] != f) {
			seen = append(seen, f)
			next <- true
		}
	}))
	if len(seen) != 3 || seen[2] != 0.75 {
		t.Errorf("progress %v", seen)
	}
}

// TestCallerGivesUp: the work is cancelled, and has ended when the call returns.
func TestCallerGivesUp(t *testing.T) {
	ctx, giveUp := context.WithCancel(t.Context())
	ended := make(chan bool, 1)
	_, c := serveJobs(t, func(ctx context.Context, _ func(float64)) (any, error) {
		giveUp()
		<-ctx.Done()
		ended <- true
		return nil, ctx.Err()
	})
	if err := c.CommitVolume(ctx, testSR, "v", nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	select {
	case <-ended:
	default:
		t.Error("the work goes on")
	}
}

// TestJobIsLost: who follows a job across a restart of hostd is told to ask again.
func TestJobIsLost(t *testing.T) {
	lost := make(chan bool)
	var restart func()
	restart, c := serveJobs(t, func(ctx context.Context, progress func(float64)) (any, error) {
		progress(0.5)
		<-lost
		return nil, ctx.Err()
	})
	err := c.CommitVolume(t.Context(), testSR, "v", func(f float64) {
		if f == 0.5 {
			restart()
			close(lost)
		}
	})
	if code(err) != client.CodeJobLost {
		t.Errorf("%v", err)
	}
}
