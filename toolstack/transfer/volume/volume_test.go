package volume_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"strings"
	"testing"
	"testing/iotest"

	"cairn/toolstack/api"
	"cairn/toolstack/storage"
	"cairn/toolstack/transfer/xva"
	"cairn/toolstack/wire/wiretest"
)

func TestRoundTrip(t *testing.T) {
	t.Parallel() // they wait for connections to end
	r := newRig(t)
	for _, kind := range []string{"full", "sparse", "empty"} {
		const size = 7 * mib
		want := random(kind, size)
		a, b, c := r.disk(size), r.disk(size), r.disk(size)
		r.put("vdi="+string(a), want) // raw, where nothing is said
		r.holds(kind, a, want)
		if got := r.get("format=raw&vdi=" + r.vdi(a).UUID); !bytes.Equal(got, want) {
			t.Errorf("%s: raw reads as something else", kind)
		}
		for _, format := range formats {
			image := r.get("format=" + format + "&vdi=" + string(a))
			r.put("format="+format+"&vdi="+string(b), image)
			r.holds(kind+" as "+format, b, want)
			r.put("vdi="+string(c), random("full", size))
			r.put("format="+format+"&vdi="+string(c), image) // over what is there
			r.holds(kind+" as "+format+" over another", c, want)
			if kind == "sparse" && len(image) > 2*(2*mib+512)+64<<10 {
				t.Errorf("the image of a sparse disk has %d bytes", len(image))
			}
		}
		most := map[string]int{"full": 112, "sparse": 4, "empty": 0}[kind]
		if n, m := r.clusters(a), r.clusters(b); n > most || m > most {
			t.Errorf("%s: %d and %d clusters, %d have anything in them", kind, n, m, most)
		}
		for _, ref := range []api.VDIRef{a, b, c} {
			r.free(kind, ref)
		}
	}
}

// TestChain restores each state from a full image and differences.
func TestChain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.chain("sparse", 5*mib+512*7)
	if r.hostd.Lent() != 0 {
		t.Error("volumes are lent out")
	}
}

// TestRefused: what is asked for wrongly is answered with its error and changes nothing.
func TestRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ref := r.disk(4 * mib)
	want := random("full", 4*mib)
	r.put("vdi="+string(ref), want)
	var snapshot api.VDIRef
	r.Must(&snapshot, "VDI.snapshot", ref)
	vm, vbd := api.NewVM(), api.NewVBD()
	used := r.disk(mib)
	vbd.VM, vbd.VDI, vbd.CurrentlyAttached, vbd.Mode = wiretest.Insert(r.Server, vm), used, true, api.VBDModeRW
	wiretest.Insert(r.Server, vbd)
	image := r.get("format=vhd&vdi=" + string(snapshot))
	based := r.get("format=qcow2&vdi=" + string(snapshot))
	copy(based[8:], "backing!")
	small := r.disk(mib)
	noise := random("full", 3000)
	for _, c := range []struct {
		method, query string
		body          []byte
		status        int
		want          string
	}{
		{"GET", "vdi=none", nil, 404, "UUID_INVALID [VDI, none]"},
		{"GET", "", nil, 404, "UUID_INVALID [VDI, ]"},
		{"GET", "format=zip&vdi=" + string(ref), nil, 500, "INVALID_VALUE [format, zip]"},
		{"GET", "base=" + string(snapshot) + "&vdi=" + string(ref), nil, 500, "INVALID_VALUE [format, raw]"},
		{"GET", "format=qcow2&base=" + string(snapshot) + "&vdi=" + string(ref), nil, 500, "INVALID_VALUE [format, qcow2]"},
		{"GET", "format=qcow2&base=none&vdi=" + string(ref), nil, 500, "INVALID_VALUE [format, qcow2]"},
		{"GET", "format=vhd&base=none&vdi=" + string(ref), nil, 404, "UUID_INVALID [VDI, none]"},
		{"GET", "vdi=" + string(used), nil, 500, "VDI_IN_USE [" + string(used) + ", copy]"},
		{"PUT", "vdi=OpaqueRef:none", noise, 404, "HANDLE_INVALID [VDI, OpaqueRef:none]"},
		{"PUT", "vdi=" + string(used), noise, 500, "VDI_IN_USE"},
		{"PUT", "vdi=" + string(snapshot), noise, 500, "VDI_READONLY"},
		{"PUT", "format=vhd&vdi=" + string(ref), noise, 500, "IMPORT_ERROR"},
		{"PUT", "format=vhd&vdi=" + string(ref), image[:1000], 500, "IMPORT_ERROR"},
		{"PUT", "format=qcow2&vdi=" + string(ref), noise, 500, "IMPORT_ERROR"},
		{"PUT", "format=qcow2&vdi=" + string(ref), based, 500, "IMPORT_ERROR"},
		{"PUT", "format=vmdk&vdi=" + string(ref), noise, 500, "IMPORT_ERROR"},
		{"PUT", "format=vhd&vdi=" + string(small), image, 500, "VDI_TOO_SMALL [" + string(small) + ", 4194304]"},
		{"PUT", "vdi=" + string(small), want, 500, "VDI_TOO_SMALL [" + string(small) + ", 4194304]"},
		{"PUT", "vdi=" + string(ref), nil, 200, ""}, // only asks whether it may come
		{"PUT", "format=vhd&vdi=" + string(ref), nil, 200, ""},
		{"PUT", "sr_id=none", noise, 404, "UUID_INVALID [SR, none]"},
		{"PUT", "format=vhd&sr_id=" + string(r.sr), noise, 500, "INVALID_VALUE"},
	} {
		path := map[string]string{"GET": "/export_raw_vdi", "PUT": "/import_raw_vdi"}[c.method]
		resp, text, err := r.send(c.method, path, c.query, bytes.NewReader(c.body), int64(len(c.body)))
		if err != nil || resp.StatusCode != c.status || !strings.Contains(string(text), c.want) {
			t.Errorf("%s %s: %v %q, %v", c.method, c.query, resp, text, err)
		}
	}
	r.holds("after all that", ref, want)
	r.holds("after all that", small, make([]byte, mib))
	r.free("after all that", ref)
	if n := len(wiretest.Get(r.Server, r.sr).VDIs); n != 4 {
		t.Errorf("%d rows of disks", n)
	}
}

// TestForeign: files of other kinds are no fixed VHDs, and refused before they have
// become one disk's bytes.
func TestForeign(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ref, want, images := r.images(2 * mib)
	var vm bytes.Buffer
	m, err := xva.NewDiskWriter(&vm, "Ref:1", mib)
	if err == nil {
		err = errors.Join(m.Run(0, want[:mib]), m.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	for kind, b := range map[string][]byte{
		"a qcow2 image": images["qcow2"], "a VMDK image": images["vmdk"], "a tar archive": vm.Bytes(),
		"a VHDX image": []byte("vhdxfile"), "packed by gzip": []byte("\x1f\x8b\x08\x00"), "packed by zstd": []byte("\x28\xb5\x2f\xfd"),
	} {
		whole := make([]byte, 2*mib+512)
		copy(whole, b)
		resp, text, err := r.send("PUT", "/import_raw_vdi", "format=vhd&vdi="+string(ref), bytes.NewReader(whole), int64(len(whole)))
		if err != nil || !strings.Contains(string(text), "IMPORT_ERROR [not a VHD that can be read: it is "+kind) {
			t.Errorf("%s: %v %q, %v", kind, resp, text, err)
		}
		r.holds("after "+kind, ref, want)
	}
	for _, c := range []struct {
		length int64
		want   string
	}{{2*mib + 1024, "VDI_TOO_SMALL ["}, {2*mib + 511, "IMPORT_ERROR [not a VHD"}, {512, "IMPORT_ERROR [not a VHD"}} {
		resp, text, err := r.send("PUT", "/import_raw_vdi", "format=vhd&vdi="+string(ref), bytes.NewReader(make([]byte, c.length)), c.length)
		if err != nil || !strings.Contains(string(text), c.want) {
			t.Errorf("%d zeros: %v %q, %v", c.length, resp, text, err)
		}
	}
	r.holds("after zeros", ref, want)
}

// TestTruncated: a qcow2 or VHD whose length says that it ends before it should is refused,
// and the disk is what it was.
func TestTruncated(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, _, images := r.images(4 * mib)
	image, ref, want := images["qcow2"], r.disk(4*mib), random("sparse", 4*mib)
	r.put("vdi="+string(ref), want)
	for _, n := range []int{4, 100, 112, 60000, 70000, 140000, 200000, 300000, 2 * mib, len(image) - 65536, len(image) - 1} {
		resp, text, err := r.send("PUT", "/import_raw_vdi", "format=qcow2&vdi="+string(ref), bytes.NewReader(image[:n]), int64(n))
		if err != nil || !strings.Contains(string(text), "IMPORT_ERROR [not a qcow2 image that can be read: ") {
			t.Errorf("the first %d bytes: %v %q, %v", n, resp, text, err)
		}
		r.holds(fmt.Sprint("after ", n), ref, want)
	}
	short := images["vhd"][:len(images["vhd"])-513] // without its footer and a byte of its last block
	resp, text, err := r.send("PUT", "/import_raw_vdi", "format=vhd&vdi="+string(ref), bytes.NewReader(short), int64(len(short)))
	if err != nil || !strings.Contains(string(text), "IMPORT_ERROR [not a VHD that can be read: ") {
		t.Errorf("a VHD: %v %q, %v", resp, text, err)
	}
	r.holds("after a VHD", ref, want)
	r.free("after all that", ref)
	r.put("format=qcow2&vdi="+string(ref), image)
}

// TestCutOff: a client that goes in the middle leaves a failed task and a free disk.
func TestCutOff(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ref, want, images := r.images(8 * mib)
	for format, b := range images {
		for at := mib - 7; at < len(b); at += mib {
			task := r.task()
			body := io.MultiReader(bytes.NewReader(b[:at]), iotest.ErrReader(errors.New("he trips over the cable")))
			if _, _, err := r.send("PUT", "/import_raw_vdi", "task_id="+task+"&format="+format+"&vdi="+string(ref), body, int64(len(b))); err == nil {
				t.Errorf("%s cut at %d: an answer", format, at)
			}
			if got := r.ended(task); !strings.HasPrefix(got, "failure[VDI_IO_ERROR") && !strings.HasPrefix(got, "failure[IMPORT_ERROR") {
				t.Errorf("%s cut at %d: %s", format, at, got)
			}
			r.free(format, ref)
		}
	}
	r.put("vdi="+string(ref), want)
	for _, format := range []string{"raw", "vhd"} {
		task := r.task()
		req, err := http.NewRequest("GET", r.url("/export_raw_vdi", "task_id="+task+"&format="+format+"&vdi="+string(ref)), nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		io.ReadFull(resp.Body, make([]byte, mib))
		resp.Body.Close()
		if got := r.ended(task); !strings.HasPrefix(got, "failure[VDI_IO_ERROR the client: ") && !strings.HasPrefix(got, "success") {
			t.Errorf("%s: %s", format, got) // what was sent may all have been on its way
		}
		r.free(format, ref)
	}
	r.holds("in the end", ref, want)
}

// TestUnknownLength: clients claim a petabyte, and hang up or wait.
func TestUnknownLength(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, want, images := r.images(4 * mib)
	delete(images, "qcow2") // all of it must come before any of it is read
	for _, with := range []string{"gzip", "zstd"} {
		images["tar&with="+with] = zipped(t, with, images["tar"]) // the query's second word means nothing
	}
	for format, b := range images {
		for _, waits := range []bool{false, true} {
			if waits && strings.Contains(format, "with=") {
				continue // an unpacker asks whether there is more before it gives the last bytes
			}
			into := r.disk(4 * mib)
			task := r.task()
			body, feed := io.Pipe()
			answer, heard := make(chan error, 1), make(chan struct{})
			ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotFirstResponseByte: func() { close(heard) }})
			go func() {
				_, _, err := r.sendWith(ctx, "PUT", "/import_raw_vdi", "task_id="+task+"&format="+format+"&vdi="+string(into), body, 1<<50)
				answer <- err
			}()
			feed.Write(b)
			if !waits { // what he has not read would be answered with a reset, which takes away what he sent
				<-heard
				feed.CloseWithError(errors.New("he hangs up"))
			}
			if got := r.ended(task); got != "success[]" {
				t.Errorf("%s, waits %v: %s", format, waits, got)
			}
			feed.Close()
			<-answer
			r.holds(format, into, want)
			r.free(format, into)
		}
	}
	into := r.disk(4 * mib)
	resp, text, err := r.send("PUT", "/import_raw_vdi", "vdi="+string(into), iotest.HalfReader(bytes.NewReader(want)), -1)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("in chunks: %v %q %v", resp, text, err)
	}
	r.holds("in chunks", into, want)
	resp, text, err = r.send("PUT", "/import_raw_vdi", "vdi="+string(into), io.MultiReader(bytes.NewReader(want), strings.NewReader("x")), -1)
	if err != nil || !strings.Contains(string(text), "VDI_TOO_SMALL ["+string(into)+", 4194305]") {
		t.Errorf("more chunks than the disk has room for: %v %q %v", resp, text, err)
	}
	task := r.task()
	r.send("PUT", "/import_raw_vdi", "task_id="+task+"&vdi="+string(into), io.MultiReader(bytes.NewReader(want[:mib]), iotest.ErrReader(errors.New("gone"))), -1)
	if got := r.ended(task); !strings.HasPrefix(got, "failure[VDI_IO_ERROR") {
		t.Errorf("chunks that were cut off: %s", got)
	}
	r.free("chunks that were cut off", into)
}

// TestReset: a client whose connection breaks fails its task with an error of its
// stream, whatever it sent and however it told its length.
func TestReset(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	_, _, images := r.images(4 * mib)
	for format, b := range images {
		for _, length := range []int64{1 << 50, int64(len(b)), -1} {
			if format == "qcow2" && length != int64(len(b)) {
				continue // its length must be known
			}
			for _, at := range []int{0, 3, 700, len(b) / 2} {
				into, task := r.disk(4*mib), r.task()
				r.reset("task_id="+task+"&format="+format, into, b[:at], length)
				if got := r.ended(task); !strings.HasPrefix(got, "failure[VDI_IO_ERROR the client: ") {
					t.Errorf("%s of %d, reset at %d: %s", format, length, at, got)
				}
				r.free(format, into)
				r.Must(nil, "VDI.destroy", into)
			}
		}
	}
}

// TestCancel: a cancelled task ends its stream at once.
func TestCancel(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ref := r.disk(64 * mib)
	task := r.task()
	body, feed := io.Pipe()
	defer feed.Close()
	answer := make(chan string, 1)
	go func() {
		_, text, err := r.send("PUT", "/import_raw_vdi", "task_id="+task+"&vdi="+string(ref), body, 64*mib)
		answer <- fmt.Sprint(string(text), err)
	}()
	feed.Write(random("full", 3*mib))
	r.Until("it is on its way", func() bool { return wiretest.Get(r.Server, api.TaskRef(task)).Progress >= 0.03 })
	if ops := r.vdi(ref).CurrentOperations; ops[task] != api.VDIOperationsRevertTo {
		t.Errorf("operations %v", ops)
	}
	r.Must(nil, "task.cancel", task)
	if got := r.ended(task); got != "cancelled[TASK_CANCELLED "+task+"]" {
		t.Error(got)
	}
	feed.CloseWithError(io.ErrClosedPipe)
	<-answer
	r.free("import", ref)
}

func TestNewDisk(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	want := random("sparse", 3*mib)
	for came, size := range map[int]int{3 * mib: 3 * mib, 1: 512, 512: 512, mib - 511: mib, mib: mib, mib + 1: 2 * mib} {
		task, b := r.task(), want[len(want)-came:]
		r.put("task_id="+task+"&sr_id="+wiretest.Get(r.Server, r.sr).UUID, b)
		done := wiretest.Get(r.Server, api.TaskRef(task))
		made := api.VDIRef(strings.TrimSuffix(strings.TrimPrefix(done.Result, "<value>"), "</value>"))
		r.holds(fmt.Sprint("a new disk of ", came), made, append(bytes.Clone(b), make([]byte, size-came)...))
	}
	before := len(wiretest.Get(r.Server, r.sr).VDIs)
	body := io.MultiReader(bytes.NewReader(want[:mib]), iotest.ErrReader(errors.New("gone")))
	failed := r.task()
	r.send("PUT", "/import_raw_vdi", "task_id="+failed+"&sr_id="+string(r.sr), body, 3*mib)
	if got := r.ended(failed); !strings.HasPrefix(got, "failure[VDI_IO_ERROR") {
		t.Error(got)
	}
	if n := len(wiretest.Get(r.Server, r.sr).VDIs); n != before {
		t.Errorf("%d disks, there were %d", n, before)
	}
	if resp, text, err := r.send("PUT", "/import_raw_vdi", "sr_id="+string(r.sr), bytes.NewReader(want), -1); err != nil || !strings.Contains(string(text), "IMPORT_ERROR_CANNOT_HANDLE_CHUNKED") {
		t.Errorf("%v %q %v", resp, text, err)
	}
}

// TestCrash: a process that knows nothing of an import destroys what there is of it, and
// leaves what came before alone.
func TestCrash(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	want := random("full", 3*mib)
	r.put("sr_id="+string(r.sr), want)
	rows := func(r *rig) []api.VDIRef { return wiretest.Get(r.Server, r.sr).VDIs }
	whole := rows(r)
	body, feed := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.send("PUT", "/import_raw_vdi", "sr_id="+string(r.sr), body, 8*mib)
	}()
	feed.Write(want)
	r.Until("bytes are written to a disk", func() bool { return r.hostd.Lent() == 1 })
	next := r.kill(func() {
		feed.CloseWithError(io.ErrClosedPipe)
		<-done
		r.Until("its loan ends", func() bool { return r.hostd.Lent() == 0 })
	})
	next.Until("it is swept", func() bool { return slices.Equal(rows(next), whole) })
	next.holds("what came before", whole[0], want)
	if v := next.vdi(whole[0]); v.SMConfig[storage.MarkKey] != "" {
		t.Errorf("it is marked: %v", v.SMConfig)
	}
}

func TestFullRepository(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.hostd.SetSize("/dev/sdb", 6*mib)
	ref := r.disk(16 * mib)
	resp, text, err := r.send("PUT", "/import_raw_vdi", "vdi="+string(ref), bytes.NewReader(random("full", 16*mib)), 16*mib)
	if err == nil && !strings.Contains(string(text), "SR_FULL") {
		t.Errorf("%v %q", resp, text)
	}
	r.free("full", ref)
	r.Must(nil, "VDI.destroy", ref)
}

func TestElsewhere(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	other := api.NewHost()
	other.Address = "10.0.0.9"
	pbd := api.NewPBD()
	pbd.SR, pbd.Host, pbd.CurrentlyAttached = wiretest.Insert(r.Server, api.NewSR()), wiretest.Insert(r.Server, other), true
	wiretest.Insert(r.Server, pbd)
	disk := api.NewVDI()
	disk.SR, disk.Managed = pbd.SR, true
	ref := wiretest.Insert(r.Server, disk)
	for method, path := range map[string]string{"GET": "/export_raw_vdi", "PUT": "/import_raw_vdi"} {
		resp, _, err := r.send(method, path, "vdi="+string(ref), nil, 0)
		if err != nil || resp.StatusCode != http.StatusFound || !strings.HasPrefix(resp.Header.Get("Location"), "https://10.0.0.9"+path) {
			t.Errorf("%s: %v, %v", path, resp, err)
		}
	}
}
