package volume_test

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"cairn/toolstack/api"
	"cairn/toolstack/transfer/xva"
)

// packed is an archive of one disk, as others may write it.
func packed(t *testing.T, folder string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := xva.NewDiskWriter(&out, folder, int64(len(b)))
	if err == nil {
		err = w.Run(0, b)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestTar: whatever others call the folder, and however much smaller the disk was.
func TestTar(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ref := r.disk(4 * mib)
	want := random("full", 4*mib)
	for _, size := range []int{4 * mib, 3*mib + 512, 2 * mib, 512} {
		r.put("vdi="+string(ref), random("full", 4*mib))
		r.put("format=tar&vdi="+string(ref), packed(t, "Ref:7", want[:size]))
		r.holds("a smaller one", ref, append(bytes.Clone(want[:size]), make([]byte, 4*mib-size)...))
	}
	resp, b, err := r.send("GET", "/export_raw_vdi", "format=tar&vdi="+string(ref), nil, 0)
	if err != nil || resp.Header.Get("Content-Type") != "application/x-tar" || !strings.HasSuffix(resp.Header.Get("Content-Disposition"), `.tar"`) || !bytes.HasPrefix(b, []byte("vdi/00000000\x00")) {
		t.Errorf("%v, %v", resp, err)
	}
}

// TestHostileTar: what is wrong in the first chunk changes nothing; later nothing of a
// wrong chunk is written.
func TestHostileTar(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ref := r.disk(4 * mib)
	was, other := random("full", 4*mib), bytes.Repeat([]byte("new"), 4*mib/3+1)[:4*mib]
	good := packed(t, "vdi", other)
	const chunk, sum = 512 + mib, 2 * 512
	spoilt := func(at int) []byte {
		b := bytes.Clone(good)
		b[at] ^= 1
		return b
	}
	small := packed(t, "vdi", other[:2*mib])
	two := packed(t, "a", other[:mib])
	two = append(two[:len(two)-1024], packed(t, "b", other[:mib])...)
	for _, c := range []struct {
		what    string
		body    []byte
		want    string
		written int // of the new bytes; what is not is zero, and -1: nothing was touched
	}{
		{"noise", random("full", 3000), "IMPORT_ERROR [", -1},
		{"no chunk", make([]byte, 1024), "VDI_IO_ERROR", -1},
		{"too large", packed(t, "vdi", make([]byte, 5*mib)), "VDI_TOO_SMALL", 0},
		{"the first is wrong", spoilt(600), "IMPORT_ERROR_SOME_CHECKSUMS_FAILED", -1},
		{"the third is wrong", spoilt(2*(chunk+sum) + 600), "IMPORT_ERROR_SOME_CHECKSUMS_FAILED", 2 * mib},
		{"cut in a chunk", good[:chunk+sum+700], "VDI_IO_ERROR", mib},
		{"cut between chunks", good[:2*(chunk+sum)], "VDI_IO_ERROR", 2 * mib},
		{"cut before its end", small[:len(small)-1024], "VDI_IO_ERROR", 2 * mib},
		{"of two disks", two, "IMPORT_ERROR", mib},
		{"a path", packed(t, "..", other), "IMPORT_ERROR [", -1},
	} {
		r.put("vdi="+string(ref), was)
		resp, text, err := r.send("PUT", "/import_raw_vdi", "format=tar&vdi="+string(ref), bytes.NewReader(c.body), int64(len(c.body)))
		if err != nil || resp.StatusCode != 500 || !strings.HasPrefix(string(text), c.want) {
			t.Errorf("%s: %v, %v %q", c.what, err, resp, text)
		}
		want := was
		if c.written >= 0 {
			want = append(bytes.Clone(other[:c.written]), make([]byte, 4*mib-c.written)...)
		}
		r.holds(c.what, ref, want)
		r.free(c.what, ref)
	}
	r.put("format=tar&vdi="+string(ref), nil)
	if _, text, err := r.send("PUT", "/import_raw_vdi", "format=tar&chunked=true&vdi="+string(ref), bytes.NewReader(good), int64(len(good))); err != nil || !strings.HasPrefix(string(text), api.CodeInvalidValue) {
		t.Errorf("%q, %v", text, err)
	}
}

// zipped packs what an archive of one disk may be packed with. Both end with a checksum of
// all, of 4 bytes, behind which gzip has 4 more.
func zipped(t *testing.T, with string, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	var w io.WriteCloser = gzip.NewWriter(&out)
	if with == "zstd" {
		z, err := zstd.NewWriter(&out)
		if err != nil {
			t.Fatal(err)
		}
		w = z
	}
	_, err := w.Write(b)
	if cerr := w.Close(); err != nil || cerr != nil {
		t.Fatal(err, cerr)
	}
	return out.Bytes()
}

// TestPackedTar: what a packer says of the whole is asked for, too; nobody holds the disk
// of an archive that is not what was packed.
func TestPackedTar(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ref := r.disk(2 * mib)
	want := random("full", 2*mib)
	for with, sum := range map[string]int{"gzip": 8, "zstd": 4} {
		b := zipped(t, with, packed(t, "vdi", want))
		wrong := bytes.Clone(b)
		wrong[len(b)-sum] ^= 1
		for _, c := range []struct {
			what string
			body []byte
			want string
		}{
			{"cut in its trailer", b[:len(b)-1], "VDI_IO_ERROR"},
			{"cut before it", b[:len(b)-sum], "VDI_IO_ERROR"},
			{"of another sum", wrong, "IMPORT_ERROR_SOME_CHECKSUMS_FAILED"},
		} {
			for _, length := range []int64{int64(len(c.body)), -1} {
				task := r.task()
				resp, text, err := r.send("PUT", "/import_raw_vdi", "format=tar&task_id="+task+"&vdi="+string(ref), bytes.NewReader(c.body), length)
				if err != nil || resp.StatusCode != 500 || !strings.HasPrefix(string(text), c.want) || !strings.HasPrefix(r.ended(task), "failure["+c.want) {
					t.Errorf("%s, %s, %d: %v, %v %q", with, c.what, length, err, resp, text)
				}
				r.free(c.what, ref)
			}
		}
		r.put("vdi="+string(ref), make([]byte, 2*mib))
		r.put("format=tar&vdi="+string(ref), b)
		r.holds(with, ref, want)
	}
}
