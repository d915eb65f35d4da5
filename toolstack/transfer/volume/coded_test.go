package volume_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"cairn/toolstack/api"
	"cairn/toolstack/client"
	"cairn/toolstack/transfer/coding"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/wire/wiretest"
)

// stored is bytes in the coding, as xe sends them.
func stored(t *testing.T, p []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := coding.NewWriter(&b, int64(len(p)))
	if _, err := w.Write(p); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// coded sends a request whose body is said to be in a coding, and takes one.
func (r *rig) coded(method, path, query, as string, body []byte) (*http.Response, []byte) {
	r.T.Helper()
	req, err := http.NewRequestWithContext(r.T.Context(), method, r.url(path, query), bytes.NewReader(body))
	if err != nil {
		r.T.Fatal(err)
	}
	req.Header.Set("Accept-Encoding", "gzip, zstd")
	if as != "" {
		req.Header["Content-Encoding"] = strings.Split(as, "|") // a line each
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		r.T.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		r.T.Fatal(err)
	}
	return resp, b
}

// TestCoded: raw bytes go out without their zeros to who can take that, and come in so,
// over what was there before; what any zstd packs comes in, too.
func TestCoded(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const size = 7 * mib
	packer, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"full", "sparse", "empty"} {
		want := random(kind, size)
		a, b := r.disk(size), r.disk(size)
		r.put("vdi="+string(a), want)
		task := r.task()
		resp, out := r.coded("GET", "/export_raw_vdi", "task_id="+task+"&vdi="+string(a), "", nil)
		if resp.Header.Get("Content-Encoding") != "zstd" || r.ended(task) != "success[]" {
			t.Errorf("%s: %v, %s", kind, resp.Header, r.ended(task))
		}
		if most := map[string]int{"full": size + 64<<10, "sparse": 2 * mib, "empty": 1 << 10}[kind]; len(out) > most {
			t.Errorf("%s: %d bytes", kind, len(out))
		}
		if got, err := io.ReadAll(coding.NewReader(bytes.NewReader(out))); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %d bytes go out, %v", kind, len(got), err)
		}
		for name, body := range map[string][]byte{"as it went out": out, "packed by another": packer.EncodeAll(want, nil)} {
			r.put("vdi="+string(b), random("full", size))
			if resp, text := r.coded("PUT", "/import_raw_vdi", "vdi="+string(b), "ZSTD", body); resp.StatusCode != http.StatusOK {
				t.Errorf("%s, %s: %v %q", kind, name, resp, text)
			}
			r.holds(kind+", "+name, b, want)
		}
		if name := "sparse"; kind == name {
			vhd := r.get("format=vhd&vdi=" + string(a))
			if resp, text := r.coded("PUT", "/import_raw_vdi", "format=vhd&vdi="+string(b), "zstd", packer.EncodeAll(vhd, nil)); resp.StatusCode != http.StatusOK {
				t.Errorf("a packed VHD: %v %q", resp, text)
			}
			r.holds("a packed VHD", b, want)
		}
		r.free(kind, a)
		r.free(kind, b)
	}
}

// zeros are a stream that claims so many.
func zeros(n int64) []byte {
	var b bytes.Buffer
	w := coding.NewWriter(&b, n)
	_ = w.Zero(n) // to memory
	_ = w.Close()
	return b.Bytes()
}

// TestCodedRefused: what is in no known coding, is none, claims too much or is cut off has
// its error; and what was refused before it was read changes nothing.
func TestCodedRefused(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const size = 4 * mib
	want := random("sparse", size)
	ref := r.disk(size)
	r.put("vdi="+string(ref), want)
	for _, as := range []string{"gzip", "zstd, gzip", "br", "x-zstd", "identity|zstd", "|zstd", "zstd|gzip", "zstd|zstd"} {
		resp, _ := r.coded("PUT", "/import_raw_vdi", "vdi="+string(ref), as, want[:512])
		if resp.StatusCode != http.StatusUnsupportedMediaType || resp.Header.Get("Accept-Encoding") != "zstd" {
			t.Errorf("%s: %v", as, resp)
		}
	}
	for name, body := range map[string][]byte{"no zstd": []byte("these bytes are a disk's, it says"), "a bomb": zeros(1 << 36), "one byte more": zeros(size + 1)} {
		resp, text := r.coded("PUT", "/import_raw_vdi", "vdi="+string(ref), "zstd", body)
		known := strings.Contains(string(text), "IMPORT_ERROR [") || strings.Contains(string(text), "VDI_TOO_SMALL [")
		if resp.StatusCode != http.StatusInternalServerError || !known {
			t.Errorf("%s: %v %q", name, resp, text)
		}
		r.holds(name, ref, want)
		r.free(name, ref)
	}
	_, out := r.coded("GET", "/export_raw_vdi", "vdi="+string(ref), "", nil)
	for _, n := range []int{10, 40, len(out) / 2, len(out) - 1} {
		resp, text := r.coded("PUT", "/import_raw_vdi", "vdi="+string(ref), "zstd", out[:n])
		if resp.StatusCode != http.StatusInternalServerError || !strings.Contains(string(text), "VDI_IO_ERROR [the stream was cut off") {
			t.Errorf("%d bytes of %d: %v %q", n, len(out), resp, text)
		}
		r.free(fmt.Sprint("after ", n), ref)
	}
	r.put("vdi="+string(ref), want)
	packer, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	long := append(bytes.Clone(want), 1)
	if resp, text := r.coded("PUT", "/import_raw_vdi", "vdi="+string(ref), "zstd", stored(t, long)); !strings.Contains(string(text), fmt.Sprintf("VDI_TOO_SMALL [%s, %d]", ref, len(long))) {
		t.Errorf("a byte too many: %v %q", resp, text)
	}
	r.holds("after a disk that is larger", ref, want)
	if resp, text := r.coded("PUT", "/import_raw_vdi", "sr_id="+string(r.sr), "zstd", packer.EncodeAll(want, nil)); resp.StatusCode == http.StatusOK {
		t.Errorf("a disk of a size that nobody knows: %v %q", resp, text)
	}
	for _, format := range []string{"raw", "vhd", "qcow2"} {
		if resp, text := r.coded("PUT", "/import_raw_vdi", "format="+format+"&vdi="+string(ref), "zstd", nil); resp.StatusCode != http.StatusOK {
			t.Errorf("nothing, as %s: %v %q", format, resp, text)
		}
	}
	r.pretends(ref)
	r.put("vdi="+string(ref), want)
	r.holds("in the end", ref, want)
}

// pretends claims a petabyte in the coding, which is refused at once.
func (r *rig) pretends(ref api.VDIRef) {
	r.T.Helper()
	conn, err := net.Dial("tcp", r.HTTP.Listener.Addr().String())
	if err != nil {
		r.T.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "PUT /import_raw_vdi?session_id=%s&vdi=%s HTTP/1.1\r\nHost: h\r\nContent-Encoding: zstd\r\nContent-Length: %d\r\n\r\n", r.Session, ref, int64(1)<<50)
	head := make([]byte, len("HTTP/1.1 415"))
	if _, err := io.ReadFull(conn, head); err != nil || string(head) != "HTTP/1.1 415" {
		r.T.Errorf("a petabyte in a coding: %q, %v", head, err)
	}
}

// TestCodedKnown: what says how much it holds is as good as what comes as it is, where the
// length has to be known.
func TestCodedKnown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ref, want, images := r.images(4 * mib)
	for _, format := range []string{"qcow2", "vhd", "vmdk"} {
		if resp, text := r.coded("PUT", "/import_raw_vdi", "format="+format+"&vdi="+string(ref), "zstd", stored(t, images[format])); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: %v %q", format, resp, text)
		}
		r.holds(format, ref, want)
	}
	task := r.task()
	resp, text := r.coded("PUT", "/import_raw_vdi", "task_id="+task+"&sr_id="+string(r.sr), "zstd", stored(t, want))
	state := r.ended(task)
	made, _, _ := strings.Cut(strings.TrimPrefix(wiretest.Get(r.Server, api.TaskRef(task)).Result, "<value>"), "</value>")
	if resp.StatusCode != http.StatusOK || !strings.HasPrefix(made, "OpaqueRef:") {
		t.Fatalf("a new disk: %v %q, %s", resp, text, state)
	}
	r.holds("a new disk", api.VDIRef(made), want)
}

// TestSparseFile is what xe does with a file that has holes, out and in.
func TestSparseFile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const size = 64 * mib
	want := append(random("sparse", 8*mib), make([]byte, size-8*mib)...)
	a, b := r.disk(size), r.disk(size)
	r.write(a, want[:8*mib], 0)
	var paths []string
	host := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		paths = append(paths, req.Method+" "+req.URL.Path+" "+req.Header.Get("Content-Encoding"))
		r.Wire.ServeHTTP(w, req)
	})}
	c := dial(t, host)
	name := filepath.Join(t.TempDir(), "disk")
	body, err := c.Get(t.Context(), "/export_raw_vdi", map[string][]string{"vdi": {string(a)}})
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(name)
	if err == nil {
		err = disk.Save(t.Context(), f, body)
	}
	if err != nil {
		t.Fatal(err)
	}
	body.Close()
	if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	info, err := f.Stat()
	if err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	r.write(b, random("full", mib), 20*mib)
	if err := c.PutFile(t.Context(), "/import_raw_vdi", map[string][]string{"vdi": {string(b)}}, name); err != nil {
		t.Error(err)
	}
	r.holds("a file with holes", b, want)
	as := ""
	if coding.Sparse(info) { // where the file system knows of holes
		as = "zstd"
	}
	if last := paths[len(paths)-1]; last != "PUT /import_raw_vdi "+as {
		t.Errorf("it is sent by %q", paths)
	}
}

// dial serves a host on a socket of its own, and logs in.
func dial(t *testing.T, host *http.Server) *client.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	serve(t, host, path)
	c, err := client.Dial(t.Context(), client.Config{Addr: path, Username: "root", Password: "secret"})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func serve(t *testing.T, host *http.Server, path string) {
	t.Helper()
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- host.Serve(l) }()
	t.Cleanup(func() { host.Close(); <-ended })
}
