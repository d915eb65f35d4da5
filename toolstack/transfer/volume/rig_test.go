package volume_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/operation"
	"cairn/toolstack/storage"
	"cairn/toolstack/storage/storagetest"
	"cairn/toolstack/transfer/vhd"
	"cairn/toolstack/transfer/volume"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire/wiretest"
)

const mib = 1 << 20

var noMap = map[string]string{}

// rig is a server of one host, whose hostd is in memory.
type rig struct {
	*wiretest.Server
	hostd *storagetest.Hostd
	m     *storage.Manager
	host  api.HostRef
	sr    api.SRRef
	dead  atomic.Bool
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{hostd: storagetest.New()}
	r.Server = wiretest.New(t, func(reg *api.Registry, d *db.DB) {
		r.m = r.storage(d)
		r.m.Register(reg)
	})
	r.Engine.Fail = func(db.Batch) error {
		if r.dead.Load() {
			return errors.New("the process is dead")
		}
		return nil
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	volume.New(volume.Config{DB: r.DB, Disks: r.m, Drafts: r.drafts(), Now: func() time.Time { return now }}).Handle(r.Wire)
	r.host = wiretest.Insert(r.Server, api.NewHost())
	if err := r.m.EnsureDrivers(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.Must(&r.sr, "SR.create", r.host, map[string]string{"device": "/dev/sdb"}, 0, "ext", "", "ext", "", false, noMap)
	return r
}

func (r *rig) storage(d *db.DB) *storage.Manager {
	return storage.New(storage.Config{DB: d, Hostd: func(h api.HostRef) storage.Hostd {
		if h == r.host {
			return r.hostd
		}
		return nil
	}})
}

// nowhere is no host: no machine is ever run in these tests.
type nowhere struct{ vm.Host }

func (nowhere) Ref() api.HostRef                { return "" }
func (nowhere) AwaitKind(context.Context) error { return nil }
func (nowhere) Boot() string                    { return "boot" }

// kill ends the process of a rig, which changes no row any more, and returns the next one
// on what it left. What is still under way in the first must end before that by stop.
func (r *rig) kill(stop func()) *rig {
	r.T.Helper()
	r.dead.Store(true)
	stop()
	r.hostd.Forget()
	var rows db.Batch
	left, ctx := db.NewMemory(), r.T.Context()
	err := r.Engine.Load(ctx, "", func(key string, value []byte) error {
		rows.Puts = append(rows.Puts, db.Pair{Key: key, Value: bytes.Clone(value)})
		return nil
	})
	if err = errors.Join(err, left.Commit(ctx, rows)); err != nil {
		r.T.Fatal(err)
	}
	d, err := db.Open(ctx, left, db.Options{})
	if err != nil {
		r.T.Fatal(err)
	}
	next := &rig{Server: &wiretest.Server{T: r.T, DB: d}, hostd: r.hostd, host: r.host, sr: r.sr}
	next.m = next.storage(d)
	if err := errors.Join(operation.Recover(ctx, d, journal.Discard()), next.m.Recover(ctx)); err != nil {
		r.T.Fatal(err)
	}
	next.drafts()
	return next
}

// drafts is what keeps account of disks that are being made, in a process that has just
// begun.
func (r *rig) drafts() *vm.Manager {
	r.T.Helper()
	m := vm.New(vm.Config{DB: r.DB, Hypervisor: hypervisor.NewFake(), Host: nowhere{}, Disks: r.m})
	ctx, cancel := context.WithCancel(context.Background())
	ready, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); _ = m.Run(ctx, func() { close(ready) }) }()
	r.T.Cleanup(func() { cancel(); <-done })
	<-ready
	return m
}

func (r *rig) disk(size int64) (ref api.VDIRef) {
	r.T.Helper()
	ref, err := r.m.Create(r.T.Context(), storage.CreateSpec{SR: r.sr, Size: size, Name: "disk"})
	if err != nil {
		r.T.Fatal(err)
	}
	return ref
}

func (r *rig) vdi(ref api.VDIRef) *api.VDI { r.T.Helper(); return wiretest.Get(r.Server, ref) }

func (r *rig) url(path, query string) string {
	return r.HTTP.URL + path + "?session_id=" + r.Session + "&" + query
}

// get exports; an answer other than 200 fails the test.
func (r *rig) get(query string) []byte {
	r.T.Helper()
	resp, b, err := r.send("GET", "/export_raw_vdi", query, nil, 0)
	if err != nil || resp.StatusCode != http.StatusOK || resp.ContentLength >= 0 && resp.ContentLength != int64(len(b)) {
		r.T.Fatalf("%s: %v, %d bytes of %v", query, err, len(b), resp)
	}
	return b
}

// put imports; an answer other than 200 fails the test.
func (r *rig) put(query string, b []byte) {
	r.T.Helper()
	if resp, text, err := r.send("PUT", "/import_raw_vdi", query, bytes.NewReader(b), int64(len(b))); err != nil || resp.StatusCode != http.StatusOK {
		r.T.Fatalf("%s: %v, %v %q", query, err, resp, text)
	}
}

func (r *rig) send(method, path, query string, body io.Reader, length int64) (*http.Response, []byte, error) {
	r.T.Helper()
	return r.sendWith(r.T.Context(), method, path, query, body, length)
}

func (r *rig) sendWith(ctx context.Context, method, path, query string, body io.Reader, length int64) (*http.Response, []byte, error) {
	r.T.Helper()
	req, err := http.NewRequestWithContext(ctx, method, r.url(path, query), body)
	if err != nil {
		r.T.Fatal(err)
	}
	req.ContentLength = length
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

// reset sends the beginning of a stream to a disk, sees that it is taken, and breaks the
// connection. A length below 0 is one of chunks.
func (r *rig) reset(query string, into api.VDIRef, b []byte, length int64) {
	r.T.Helper()
	conn, err := net.Dial("tcp", r.HTTP.Listener.Addr().String())
	if err != nil {
		r.T.Fatal(err)
	}
	defer conn.Close()
	head := fmt.Sprint("Content-Length: ", length)
	if length < 0 {
		head = "Transfer-Encoding: chunked\r\n\r\n40000000" // one chunk that nobody sees the end of
	}
	fmt.Fprintf(conn, "PUT /import_raw_vdi?session_id=%s&%s HTTP/1.1\r\nHost: h\r\n%s\r\n", r.Session, query+"&vdi="+string(into), head)
	if length >= 0 {
		io.WriteString(conn, "\r\n")
	}
	conn.Write(b)
	r.Until("the disk is taken", func() bool { return len(r.vdi(into).CurrentOperations) > 0 })
	if err := conn.(*net.TCPConn).SetLinger(0); err != nil {
		r.T.Error(err)
	}
}

// holds compares a disk with what it is to read as.
func (r *rig) holds(what string, ref api.VDIRef, want []byte) {
	r.T.Helper()
	if got := r.content(ref); !bytes.Equal(got, want) {
		r.T.Errorf("%s: the disk reads as something else", what)
	}
}

func (r *rig) content(ref api.VDIRef) []byte {
	r.T.Helper()
	d, err := r.m.OpenDisk(context.Background(), ref, false, "")
	if err != nil {
		r.T.Fatal(err)
	}
	defer d.Close()
	b := make([]byte, d.Size())
	if _, err := d.ReadAt(b, 0); err != nil {
		r.T.Fatal(err)
	}
	return b
}

// write writes as a guest does.
func (r *rig) write(ref api.VDIRef, b []byte, off int64) {
	r.T.Helper()
	d, err := r.m.OpenDisk(context.Background(), ref, true, "")
	if err != nil {
		r.T.Fatal(err)
	}
	defer d.Close()
	if _, err := d.WriteAt(b, off); err != nil {
		r.T.Fatal(err)
	}
}

// clusters is how many a disk's own layer has.
func (r *rig) clusters(ref api.VDIRef) int {
	r.T.Helper()
	v, err := r.hostd.Volume(r.T.Context(), wiretest.Get(r.Server, r.sr).UUID, r.vdi(ref).Location)
	if err != nil {
		r.T.Fatal(err)
	}
	return int(v.Used/storagetest.Cluster) - 4 // its header
}

// formats are those beside raw.
var formats = []string{"vhd", "vmdk", "qcow2", "tar"}

// images are a new disk, its content, and that in every format.
func (r *rig) images(size int64) (ref api.VDIRef, want []byte, images map[string][]byte) {
	r.T.Helper()
	ref, want = r.disk(size), random("full", size)
	r.put("vdi="+string(ref), want)
	images = map[string][]byte{"raw": want}
	for _, f := range formats {
		images[f] = r.get("format=" + f + "&vdi=" + string(ref))
	}
	return ref, want, images
}

// chain writes to a disk, and restores each of six states to another from a full image
// and differences.
func (r *rig) chain(kind string, size int64) {
	r.T.Helper()
	ref := r.disk(size)
	whole := r.vdi(ref).VirtualSize
	state, copied := random(kind, whole), r.disk(whole)
	r.put("vdi="+string(ref), state)
	var last api.VDIRef
	for n := range 6 {
		var snapshot api.VDIRef
		r.Must(&snapshot, "VDI.snapshot", ref)
		query := "format=vhd&vdi=" + string(snapshot)
		if n > 0 {
			query += "&base=" + string(last)
		}
		image := r.get(query)
		v, err := vhd.NewReader(bytes.NewReader(image), int64(len(image)))
		if err != nil || (v.Info().Kind == vhd.Differencing) != (n > 0) || n > 0 && v.Info().ParentName != r.vdi(last).UUID+".vhd" {
			r.T.Fatalf("image %d: %+v, %v", n, v.Info(), err)
		}
		if n > 0 && len(image) > 2*(2*mib+512)+64<<10 {
			r.T.Errorf("difference %d has %d bytes", n, len(image))
		}
		r.put("format=vhd&vdi="+string(copied), image)
		r.holds(fmt.Sprint("state ", n), copied, state)
		change := bytes.Repeat([]byte{byte(n)}, 70<<10) // zeros over data the first time
		at := int64(n) * whole / 7
		copy(state[at:], change)
		r.write(ref, change, at)
		last = snapshot
	}
}

// free asserts that nobody holds a disk any more, which is so soon after a stream ends.
func (r *rig) free(what string, ref api.VDIRef) {
	r.T.Helper()
	r.Until(what+": the disk is free", func() bool {
		v, err := db.Get(r.DB.Snapshot(), ref)
		return err != nil || len(v.CurrentOperations) == 0
	})
	if n := r.hostd.Lent(); n != 0 {
		r.T.Errorf("%s: %d volumes are lent out", what, n)
	}
}

func (r *rig) task() (ref string) {
	r.T.Helper()
	r.Must(&ref, "task.create", "transfer", "")
	return ref
}

// ended waits for a task's end and tells it.
func (r *rig) ended(task string) string {
	r.T.Helper()
	get := func() *api.Task { return wiretest.Get(r.Server, api.TaskRef(task)) }
	r.Until("the task has ended", func() bool {
		return get().Status != api.TaskStatusTypePending && get().Status != api.TaskStatusTypeCancelling
	})
	return fmt.Sprint(get().Status, get().ErrorInfo)
}

// random is a disk's content: full, sparse with its last bytes in it, or empty.
func random(kind string, size int64) []byte {
	b := make([]byte, size)
	source := rand.NewChaCha8([32]byte{byte(size)})
	switch kind {
	case "full":
		source.Read(b)
	case "sparse":
		source.Read(b[size/3 : size/3+100<<10])
		source.Read(b[size-1000:])
	}
	return b
}
