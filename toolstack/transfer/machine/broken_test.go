package machine_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire/wiretest"
)

// TestCutAtEveryMiB: a client that goes away in the middle leaves nothing behind,
// wherever that is, and an archive that ends there does not either.
func TestCutAtEveryMiB(t *testing.T) {
	r := newRig(t)
	from, _ := r.insert("web", nil)
	for _, pack := range []string{"", "zstd"} {
		b := r.get("/export?ref=" + string(from) + "&use_compression=" + pack)
		before := r.state()
		for at := 0; at < len(b); at += mib {
			_, err := r.put("/import?", &gone{bytes.NewReader(b[:at])}, int64(len(b)))
			if code(err) != "IMPORT_ERROR_PREMATURE_EOF []" {
				t.Errorf("%q cut at %d: %v", pack, at, err)
			}
			r.unchanged("cut", before)
			if _, err := r.importing("", b[:at]); code(err) != "IMPORT_ERROR_PREMATURE_EOF []" {
				t.Errorf("%q ended at %d: %v", pack, at, err)
			}
			r.unchanged("ended", before)
		}
	}
	if r.disks.opened < 12 {
		t.Errorf("%d disks were ever opened", r.disks.opened)
	}
}

// gone is a client that goes away.
type gone struct{ io.Reader }

func (g *gone) Read(p []byte) (int, error) {
	n, err := g.Reader.Read(p)
	if errors.Is(err, io.EOF) {
		err = errors.New("gone")
	}
	return n, err
}

// TestAtEveryMember is the same for the ends of an archive's members, where it looks
// whole to a reader of tar.
func TestAtEveryMember(t *testing.T) {
	r := newRig(t)
	from, _ := r.insert("web", nil)
	b := r.get("/export?ref=" + string(from))
	before := r.state()
	whole := bytes.TrimRight(b, "\x00")
	last := (len(whole) + 511) / 512 * 512
	for at := 512; at < last; at += 512 {
		if !bytes.HasPrefix(b[at:], []byte("Ref:")) && !bytes.HasPrefix(b[at:], []byte("ova")) {
			continue
		}
		if _, err := r.importing("", b[:at]); code(err) != "IMPORT_ERROR_PREMATURE_EOF []" {
			t.Errorf("ended at %d: %v", at, err)
		}
		r.unchanged("ended", before)
	}
	r.mustImport("", b[:last]) // the two empty blocks at the end mean nothing
}

// TestDiskFails: nor does a disk that cannot be opened, written, flushed or made.
func TestDiskFails(t *testing.T) {
	r := newRig(t)
	from, _ := r.insert("web", nil)
	b := r.get("/export?ref=" + string(from))
	before := r.state()
	for _, what := range []string{"open", "write", "flush"} {
		for nth := range 3 {
			n := 0
			r.disks.fail = func(w string, _ int64) error {
				if w == what {
					if n++; n > nth {
						return errors.New("boom")
					}
				}
				return nil
			}
			_, err := r.importing("", b)
			if n > nth && code(err) != "INTERNAL_ERROR [boom]" {
				t.Errorf("%s %d: %v", what, nth, err)
			}
			r.disks.fail = nil
			if n <= nth {
				before = r.state() // it went through
				break
			}
			r.unchanged(what, before)
		}
	}
	r.disks.fail = nil
	r.hostd.SetSize("/srv/one", 1)
	if _, err := r.importing("", b); err == nil {
		t.Error("a full repository takes a VM")
	}
	r.unchanged("full", before)
	r.hostd.SetSize("/srv/one", storageSize)
	for nth := range 2 {
		n := 0
		r.hostd.Fail(func(verb, _, _ string) error {
			if verb == "create" {
				if n++; n > nth {
					return errors.New("boom")
				}
			}
			return nil
		})
		if _, err := r.importing("", b); err == nil {
			t.Errorf("a disk that cannot be made, %d: no error", nth)
		}
		r.hostd.Fail(nil)
		r.unchanged("create", before)
	}
}

const storageSize = 1 << 40

// TestDatabaseFails: nor a database that does not take the VM.
func TestDatabaseFails(t *testing.T) {
	r := newRig(t)
	from, _ := r.insert("web", nil)
	b := r.get("/export?ref=" + string(from))
	before := r.state()
	var refuse, asked atomic.Bool
	r.Engine.Fail = func(db.Batch) error {
		if refuse.Swap(false) {
			asked.Store(true)
			return errors.New("no database")
		}
		return nil
	}
	r.disks.fail = func(what string, _ int64) error {
		if what == "flush" && r.disks.opened == 4 { // both of the export, both of the import
			refuse.Store(true)
		}
		return nil
	}
	_, err := r.importing("", b)
	if !asked.Load() || err == nil {
		t.Errorf("it was asked: %v, %v", asked.Load(), err)
	}
	r.unchanged("no database", before)
}

// TestCancel ends an import and an export.
func TestCancel(t *testing.T) {
	r := newRig(t)
	from, _ := r.insert("web", nil)
	b := r.get("/export?ref=" + string(from))
	before := r.state()
	var task string
	r.Must(&task, "task.create", "import", "")
	body, feed := io.Pipe()
	done := make(chan string, 1)
	go func() {
		req, _ := http.NewRequest(http.MethodPut, r.HTTP.URL+"/import?session_id="+r.Session+"&task_id="+task, body)
		req.ContentLength = int64(len(b))
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			done <- err.Error()
			return
		}
		defer resp.Body.Close()
		text, _ := io.ReadAll(resp.Body)
		done <- string(text)
	}()
	feed.Write(b[:5*mib])
	r.Until("a disk", func() bool { return r.state() != before })
	r.Must(nil, "task.cancel", task)
	if text := <-done; !strings.Contains(text, "TASK_CANCELLED") {
		t.Error(text)
	}
	feed.Close()
	r.cancelled(task)
	r.unchanged("cancelled", before)

	task = r.cancelsAtRead("export")
	resp, err := http.Get(r.HTTP.URL + "/export?ref=" + string(from) + "&session_id=" + r.Session + "&task_id=" + task)
	must(t, err)
	if _, err = io.ReadAll(resp.Body); err == nil && resp.StatusCode == http.StatusOK {
		t.Error("an export that was cancelled looks complete")
	}
	resp.Body.Close()
	r.cancelled(task)
	r.Until("the VM is let go", func() bool { return len(wiretest.Get(r.Server, from).CurrentOperations) == 0 })
}

// TestCrash: a process that knows nothing of an import destroys what there is of it.
func TestCrash(t *testing.T) {
	r := newRig(t)
	from, _ := r.insert("web", nil)
	b := r.get("/export?ref=" + string(from))
	before := r.state()
	body, feed := io.Pipe()
	done := make(chan struct{})
	go func() { defer close(done); r.put("/import?", body, int64(len(b))) }()
	feed.Write(b[:5*mib])
	r.Until("a disk", func() bool { return r.state() != before })
	r.run(vm.New(r.config)) // as after a restart
	r.unchangedRows("swept", before)
	feed.CloseWithError(errors.New("gone"))
	<-done
	r.unchanged("in the end", before)
}

func (r *rig) unchangedRows(what, before string) {
	r.T.Helper()
	r.Until(what, func() bool { return r.state() == before })
}

// TestSilentClient waits for an answer before it sends what it claims to be endless.
func TestSilentClient(t *testing.T) {
	r := newRig(t)
	from, vdis := r.insert("web", nil)
	b := r.get("/export?ref=" + string(from))
	var task string
	r.Must(&task, "task.create", "import", "")
	conn, err := net.Dial("tcp", r.HTTP.Listener.Addr().String())
	must(t, err)
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /import?session_id=%s&task_id=%s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", r.Session, task, int64(1)<<50)
	head := make([]byte, 12)
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 200" {
		t.Fatalf("%q, %v", head, err)
	}
	_, err = conn.Write(b)
	must(t, err)
	refs, err := r.outcome(task)
	if err != nil || len(refs) != 1 {
		t.Fatal(refs, err)
	}
	r.same(vdis, r.vdis(api.VMRef(refs[0])))
}

// TestHungUp: a client that has sent all may go; one that resets its connection in the
// middle has cut the archive.
func TestHungUp(t *testing.T) {
	r := newRig(t)
	from, vdis := r.insert("web", nil)
	b := r.get("/export?ref=" + string(from))
	before := r.state()
	send := func(b []byte, reset bool) ([]string, error) {
		var task string
		r.Must(&task, "task.create", "import", "")
		conn, err := net.Dial("tcp", r.HTTP.Listener.Addr().String())
		must(t, err)
		fmt.Fprintf(conn, "PUT /import?session_id=%s&task_id=%s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n", r.Session, task, int64(1)<<50)
		_, err = conn.Write(b)
		must(t, err)
		if reset {
			r.Until("a disk", func() bool { return r.state() != before })
			must(t, conn.(*net.TCPConn).SetLinger(0))
		}
		must(t, conn.Close())
		return r.outcome(task)
	}
	if _, err := send(b[:5*mib], true); code(err) != "IMPORT_ERROR_PREMATURE_EOF []" {
		t.Error(err)
	}
	r.unchanged("reset", before)
	refs, err := send(b, false)
	if err != nil || len(refs) != 1 {
		t.Fatal(refs, err)
	}
	r.same(vdis, r.vdis(api.VMRef(refs[0])))
}

// TestElsewhere: what only another host can reach is served there.
func TestElsewhere(t *testing.T) {
	r := newRig(t)
	from, _ := r.insert("web", nil)
	other := api.NewHost()
	other.UUID, other.Address = api.NewUUID(), "192.0.2.7"
	host := wiretest.Insert(r.Server, other)
	for _, pbd := range wiretest.Get(r.Server, r.sr).PBDs {
		r.update(func(tx *db.Tx) {
			p, err := db.Edit(tx, pbd)
			must(t, err)
			p.Host = host
		})
	}
	for _, c := range []struct{ method, path string }{{"GET", "/export?ref=" + string(from)}, {"PUT", "/import?x="}, {"PUT", "/import?sr_id=" + string(r.sr)}} {
		req, err := http.NewRequest(c.method, r.HTTP.URL+c.path+"&session_id="+r.Session, nil)
		must(t, err)
		resp, err := http.DefaultTransport.RoundTrip(req)
		must(t, err)
		resp.Body.Close()
		if got := resp.Header.Get("Location"); resp.StatusCode != http.StatusFound || got != "https://192.0.2.7"+c.path+"&session_id="+r.Session {
			t.Errorf("%s: %s, %s", c.path, resp.Status, got)
		}
	}
	if v := wiretest.Get(r.Server, from); len(v.CurrentOperations) != 0 {
		t.Errorf("left with %v", v.CurrentOperations)
	}
}

// TestFetch: the host gets an archive itself.
func TestFetch(t *testing.T) {
	r := newRig(t)
	r.Covers("VM.import")
	from, vdis := r.insert("web", nil)
	b := r.get("/export?ref=" + string(from))
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.URL.Path != "/web.xva" {
			http.NotFound(w, req)
			return
		}
		w.Write(b)
	}))
	defer files.Close()
	var refs []string
	r.Must(&refs, "VM.import", files.URL+"/web.xva", r.sr, false, false)
	if len(refs) != 1 {
		t.Fatal(refs)
	}
	r.same(vdis, r.vdis(api.VMRef(refs[0])))
	before := r.state()
	for url, want := range map[string]*api.Error{
		files.URL + "/other": api.ErrImportError("the server answers 404 Not Found"),
		"file:///etc/passwd": api.ErrInvalidValue("url", "file:///etc/passwd"),
		"http://":            api.ErrInvalidValue("url", "http://"),
	} {
		r.Refused(want, "VM.import", url, r.sr, false, false)
	}
	r.Refused(api.ErrHandleInvalid("SR", "OpaqueRef:none"), "VM.import", files.URL+"/web.xva", "OpaqueRef:none", false, false)
	r.unchanged("refused", before)
}

// TestRefusedRequests are answered before a body is looked at.
func TestRefusedRequests(t *testing.T) {
	r := newRig(t)
	from, _ := r.insert("web", nil)
	running, _ := r.insert("busy", func(vm *api.VM) { vm.PowerState = api.VMPowerStateRunning })
	before := r.state()
	for _, c := range []struct {
		method, path, want string
		status             int
	}{
		{"GET", "/export?ref=OpaqueRef:none", "HANDLE_INVALID [VM, OpaqueRef:none]", 404},
		{"GET", "/export?uuid=none", "UUID_INVALID [VM, none]", 404},
		{"GET", "/export?ref=" + string(from) + "&use_compression=lzma", "INVALID_VALUE [use_compression, lzma]", 500},
		{"GET", "/export?ref=" + string(running), "VM_BAD_POWER_STATE [" + string(running) + ", halted; suspended, running]", 500},
		{"GET", "/export_metadata?ref=OpaqueRef:none", "HANDLE_INVALID [VM, OpaqueRef:none]", 404},
		{"PUT", "/import?restore=perhaps", "INVALID_VALUE [restore, perhaps]", 500},
		{"PUT", "/import?restore=perhaps&force=often", "INVALID_VALUE [force, often]", 500}, // the same one every time
		{"PUT", "/import?sr_id=none", "UUID_INVALID [SR, none]", 404},
		{"PUT", "/import?sr_id=OpaqueRef:none", "HANDLE_INVALID [SR, OpaqueRef:none]", 404},
		{"PUT", "/import?", "IMPORT_ERROR_PREMATURE_EOF", 500},
		{"PUT", "/import_metadata?", "IMPORT_ERROR_PREMATURE_EOF", 500},
	} {
		req, err := http.NewRequestWithContext(context.Background(), c.method, r.HTTP.URL+c.path+"&session_id="+r.Session, nil)
		must(t, err)
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		text, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != c.status || strings.TrimSpace(string(text)) != c.want {
			t.Errorf("%s: %d %s", c.path, resp.StatusCode, text)
		}
	}
	r.unchanged("refused", before)
	if v := wiretest.Get(r.Server, from); len(v.CurrentOperations) != 0 {
		t.Errorf("left with %v", v.CurrentOperations)
	}
}

// TestRefusedWhileItComes: a client in the middle of a long body hears why it is refused.
func TestRefusedWhileItComes(t *testing.T) {
	r := newRig(t)
	body := append(pack(member{Name: "manifest.mf", Body: []byte("x")}), make([]byte, 64*mib)...)
	resp, err := http.DefaultClient.Do(func() *http.Request {
		req, err := http.NewRequest(http.MethodPut, r.HTTP.URL+"/import?session_id="+r.Session, bytes.NewReader(body))
		must(t, err)
		return req
	}())
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if resp.StatusCode != 500 || !strings.HasPrefix(string(text), "IMPORT_ERROR_UNEXPECTED_FILE [ova.xml, manifest.mf]") || err != nil {
		t.Errorf("%s %s, %v", resp.Status, text, err)
	}
}

// TestPackedEnd: nothing comes of an archive whose packer says that it is not what was
// packed, whatever it holds. A client that cannot say where it ends is not waited for.
func TestPackedEnd(t *testing.T) {
	r := newRig(t)
	from, _ := r.insert("web", nil)
	plain := map[string][]byte{"/import?x=y": r.get("/export?ref=" + string(from)), "/import?format=ova": r.ova(from), "/import_metadata?force=true": r.get("/export_metadata?ref=" + string(from))}
	packers := map[string]struct {
		pack func([]byte) []byte
		sum  int // from the end
	}{"gzip": {gzipped, 6}, "zstd": {zipped, 2}} // of the last 8 bytes, and of 4
	for path, archive := range plain {
		for name, p := range packers {
			b, before := p.pack(archive), r.state()
			wrong := bytes.Clone(b)
			wrong[len(b)-p.sum] ^= 1
			for _, c := range []struct {
				in   []byte
				want string
			}{{b[:len(b)-1], "IMPORT_ERROR_PREMATURE_EOF []"}, {wrong, "IMPORT_ERROR_SOME_CHECKSUMS_FAILED []"}} {
				if _, err := r.put(path, bytes.NewReader(c.in), int64(len(c.in))); code(err) != c.want {
					t.Errorf("%s %s: %v, want %s", name, path, err, c.want)
				}
				r.unchanged(name, before)
			}
			refs, err := r.put(path, &gone{bytes.NewReader(b)}, 1<<50)
			if err != nil || len(refs) != 1 {
				t.Errorf("%s %s: from a client that does not know its length: %v, %v", name, path, refs, err)
			}
		}
	}
}

// TestPackedDisksBehind: for a description the disks behind it are not read, nor is the
// checksum behind them.
func TestPackedDisksBehind(t *testing.T) {
	r := newRig(t)
	from, vdis := r.insert("web", nil)
	b := gzipped(r.get("/export?ref=" + string(from)))
	refs, err := r.put("/import_metadata?force=true", bytes.NewReader(b[:len(b)-1]), int64(len(b)-1))
	if err != nil || len(refs) != 1 {
		t.Fatal(refs, err)
	}
	if got := r.vdis(api.VMRef(refs[0])); !slices.Equal(got, vdis) {
		t.Errorf("disks %v, want those that are here: %v", got, vdis)
	}
}

// TestReaderGoes: an export whose client has gone ends as that of a disk does.
func TestReaderGoes(t *testing.T) {
	r := newRig(t)
	from, _ := r.insert("web", nil)
	for _, query := range []string{"", "&use_compression=zstd", "&format=ova"} {
		for nth := range 3 {
			var task string
			r.Must(&task, "task.create", "export", "")
			conn, err := net.Dial("tcp", r.HTTP.Listener.Addr().String())
			must(t, err)
			reads := 0
			r.disks.fail = func(what string, _ int64) error {
				if what == "read" {
					if reads++; reads == nth+1 {
						return errors.Join(conn.(*net.TCPConn).SetLinger(0), conn.Close())
					}
				}
				return nil
			}
			fmt.Fprintf(conn, "GET /export?ref=%s%s&session_id=%s&task_id=%s HTTP/1.1\r\nHost: h\r\n\r\n", from, query, r.Session, task)
			if _, err := r.outcome(task); !strings.HasPrefix(code(err), "VDI_IO_ERROR [the client: ") {
				t.Errorf("%q, read %d: %v", query, nth, err)
			}
		}
	}
	r.disks.fail = nil
	r.get("/export?ref=" + string(from)) // it is held by nobody
}
