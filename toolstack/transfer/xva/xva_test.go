package xva

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/klauspost/compress/zstd"
	"github.com/klauspost/pgzip"

	"cairn/toolstack/transfer/archive"
	"cairn/toolstack/transfer/archive/archivetest"
)

const size = 5*ChunkSize + 512

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// content is a disk's, with bytes in chunks 1 and 3 only.
func content() []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, size)
	for _, c := range []int{1, 3} {
		for i := range ChunkSize / 4 {
			b[c*ChunkSize+i] = byte(r.Uint32())
		}
	}
	return b
}

func packed(t testing.TB, c Compression, disks ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, c, []byte("<value/>"))
	must(t, err)
	b := content()
	for _, d := range disks {
		must(t, w.Disk(d, size))
		must(t, w.Chunk(ChunkSize, b[ChunkSize:2*ChunkSize]))
		must(t, w.Alive())
		must(t, w.Chunk(2*ChunkSize, b[2*ChunkSize:3*ChunkSize]))
		must(t, w.Chunk(3*ChunkSize, b[3*ChunkSize:4*ChunkSize]))
	}
	must(t, w.Close())
	return out.Bytes()
}

// newReader reads up to and with ova.xml.
func newReader(r io.Reader) (*Reader, error) {
	a, err := archive.Open(r)
	if err != nil {
		return nil, err
	}
	v, err := From(a)
	if err != nil {
		a.Close()
	}
	return v, err
}

func read(b []byte, sizes map[string]int64) (disks map[string][]byte, xml string, err error) {
	r, err := newReader(bytes.NewReader(b))
	if err != nil {
		return nil, "", err
	}
	defer r.Close()
	r.Expect(sizes)
	disks = map[string][]byte{}
	for {
		c, err := r.Next()
		if errors.Is(err, io.EOF) {
			return disks, string(r.XML()), nil
		}
		if err != nil {
			return nil, "", err
		}
		if disks[c.Disk] == nil {
			disks[c.Disk] = make([]byte, size)
		}
		copy(disks[c.Disk][c.Offset:], c.Data)
	}
}

var two = map[string]int64{"Ref:3": size, "Ref:4": size}

func TestRoundTrip(t *testing.T) {
	for _, c := range []Compression{None, Gzip, Zstd} {
		disks, xml, err := read(packed(t, c, "Ref:3", "Ref:4"), two)
		if err != nil || xml != "<value/>" || len(disks) != 2 || !bytes.Equal(disks["Ref:3"], content()) || !bytes.Equal(disks["Ref:4"], content()) {
			t.Errorf("%q: %q, %d disks, %v", c, xml, len(disks), err)
		}
	}
	if disks, _, err := read(packed(t, None), nil); err != nil || len(disks) != 0 {
		t.Errorf("no disks: %v, %v", disks, err)
	}
}

// TestNames is what other readers see: first and last chunks always, the others when
// they hold something, an empty one where there was silence.
func TestNames(t *testing.T) {
	var names []string
	r := tar.NewReader(bytes.NewReader(packed(t, None, "Ref:3")))
	for {
		h, err := r.Next()
		if err != nil {
			break
		}
		if !strings.HasSuffix(h.Name, suffixXXH) {
			names = append(names, h.Name)
		}
	}
	if got := strings.Join(names, " "); got != "ova.xml Ref:3/00000000 Ref:3/00000001 Ref:3/00000002 Ref:3/00000003 Ref:3/00000005" {
		t.Error(got)
	}
}

// TestSums: XXH64 of nothing and SHA-1 of "abc" are known.
func TestSums(t *testing.T) {
	if got := sumOf(nil, suffixXXH); got != "EF46DB3751D8E999" {
		t.Error(got)
	}
	if got := sumOf([]byte("abc"), suffixSHA1); got != "a9993e364706816aba3e25717850c26c9cd0d89d" {
		t.Error(got)
	}
}

type member = archivetest.Member

func text(name, body string) member { return member{Name: name, Body: []byte(body)} }

// kind is a member that is no file.
func kind(name string, k byte) member {
	return member{Name: name, Edit: func(h *tar.Header) { h.Typeflag, h.Linkname = k, "x" }}
}

func TestHostile(t *testing.T) {
	xml := text(xmlName, "<value/>")
	chunk := func(name, body string) []member {
		return []member{text(name, body), text(name+suffixXXH, sumOf([]byte(body), suffixXXH))}
	}
	with := func(more ...[]member) []byte {
		all := []member{xml}
		for _, m := range more {
			all = append(all, m...)
		}
		return archivetest.Pack(all...)
	}
	whole := strings.Repeat("x", ChunkSize)
	zeros := strings.Repeat("\x00", 64<<20)
	var bomb bytes.Buffer
	z, err := zstd.NewWriter(&bomb)
	must(t, err)
	_, err = z.Write(with(chunk("Ref:3/00000000", zeros)))
	must(t, err)
	must(t, z.Close())
	var gz bytes.Buffer
	g := pgzip.NewWriter(&gz)
	_, err = g.Write(with(chunk("Ref:3/00000000", whole)))
	must(t, err)
	must(t, g.Close())
	for name, b := range map[string][]byte{
		"empty": nil, "noise": bytes.Repeat([]byte("x"), 4096), "other first": archivetest.Pack(text("a", "b")), "folder": archivetest.Pack(kind(xmlName, tar.TypeDir)),
		"no checksum": with([]member{text("Ref:3/00000000", whole)}), "wrong checksum": with([]member{text("Ref:3/00000000", whole), text("Ref:3/00000000.xxhash", "0")}),
		"another's checksum": with([]member{text("Ref:3/00000000", whole), text("Ref:3/00000001.xxhash", sumOf([]byte(whole), suffixXXH))}),
		"checksum alone":     with([]member{text("Ref:3/00000000.xxhash", "0")}), "unknown disk": with(chunk("Ref:9/00000000", whole)),
		"path": with(chunk("../00000000", whole)), "long path": with(chunk("Ref:3/../../00000000", whole)), "absolute": with(chunk("/00000000", whole)),
		"sign": with(chunk("Ref:3/+0000000", whole)), "short number": with(chunk("Ref:3/0", whole)), "huge number": with(chunk("Ref:3/9223372036854775807", whole)),
		"beyond the end": with(chunk("Ref:3/00000006", whole)), "short chunk": with(chunk("Ref:3/00000000", "x")), "large chunk": with(chunk("Ref:3/00000000", whole+"x")),
		"backwards": with(chunk("Ref:3/00000001", whole), chunk("Ref:3/00000000", whole)), "twice": with(chunk("Ref:3/00000000", whole), chunk("Ref:3/00000000", whole)),
		"disk twice": with(chunk("Ref:3/00000000", whole), chunk("Ref:4/00000000", whole), chunk("Ref:3/00000001", whole)),
		"link":       with([]member{kind("Ref:3/00000000", tar.TypeSymlink)}), "device": with([]member{kind("Ref:3/00000000", tar.TypeBlock)}),
		"half": with(chunk("Ref:3/00000000", whole))[:ChunkSize/2], "bomb": bomb.Bytes(), "no last chunk": with(chunk("Ref:3/00000000", whole)), "no last chunk of the first": with(chunk("Ref:3/00000000", whole), chunk("Ref:4/00000000", whole)),
		"alive only": with(chunk("Ref:3/00000000", "")), "half of zstd": packed(t, Zstd, "Ref:3")[:3000], "half of gzip": gz.Bytes()[:gz.Len()/2],
	} {
		if _, _, err := read(b, two); !errors.Is(err, archive.ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOldChecksums: archives before 2020 carry SHA-1.
func TestOldChecksums(t *testing.T) {
	last := strings.Repeat("y", 512)
	b := archivetest.Pack(text(xmlName, "x"), text("Ref:3/00000005", last), text("Ref:3/00000005.checksum", sumOf([]byte(last), suffixSHA1)))
	if disks, _, err := read(b, two); err != nil || string(disks["Ref:3"][5*ChunkSize:]) != last {
		t.Error(err)
	}
}

func TestRefusedToWrite(t *testing.T) {
	if _, err := NewWriter(io.Discard, "lzma", nil); err == nil {
		t.Error("an unknown compression is taken")
	}
	w, err := NewWriter(io.Discard, None, nil)
	must(t, err)
	must(t, w.Disk("Ref:0", size))
	must(t, w.Chunk(2*ChunkSize, make([]byte, ChunkSize)))
	for offset, n := range map[int64]int{0: ChunkSize, 2 * ChunkSize: ChunkSize, 3*ChunkSize + 1: ChunkSize, 3 * ChunkSize: 5, 5 * ChunkSize: ChunkSize} {
		if w.Chunk(offset, make([]byte, n)) == nil {
			t.Errorf("%d bytes at %d are written", n, offset)
		}
	}
}

// TestSourceFails: what is wrong with the source is not the archive's fault.
func TestSourceFails(t *testing.T) {
	boom := errors.New("boom")
	for _, c := range []Compression{None, Gzip, Zstd} {
		b := packed(t, c, "Ref:3")
		for _, at := range []int{0, 3, 700, len(b) / 2} {
			r, err := newReader(io.MultiReader(bytes.NewReader(b[:at]), iotest.ErrReader(boom)))
			if err == nil {
				r.Expect(two)
				for err == nil {
					_, err = r.Next()
				}
				r.Close()
			}
			if !errors.Is(err, boom) || errors.Is(err, archive.ErrFormat) {
				t.Errorf("%q at %d: %v", c, at, err)
			}
		}
	}
}

// lost is a client that hears the beginning.
type lost int

func (n *lost) Write(p []byte) (int, error) {
	if *n -= lost(len(p)); *n < 0 {
		return 0, io.ErrClosedPipe
	}
	return len(p), nil
}

// TestAbandon: nothing goes on after an archive was given up, whoever gave up first.
func TestAbandon(t *testing.T) {
	before := runtime.NumGoroutine()
	noise := make([]byte, ChunkSize)
	for i := range noise {
		noise[i] = byte(rand.Uint32())
	}
	for i := range 30 {
		out := lost(i % 2 << 40)
		w, err := NewWriter(&out, []Compression{None, Gzip, Zstd}[i%3], []byte("x"))
		if err != nil {
			continue
		}
		for n := range int64(i % 7) {
			if w.Disk(chunkName("Ref:3", n), ChunkSize) != nil || w.Chunk(0, noise) != nil {
				break
			}
		}
		w.Abandon()
		if w.Chunk(0, noise) == nil && w.Close() == nil && i%3 != 0 {
			t.Errorf("%d: an archive that was given up ends well", i)
		}
	}
	for range 1000 {
		if runtime.NumGoroutine() <= before {
			return
		}
		runtime.Gosched()
	}
	t.Errorf("%d goroutines, %d before", runtime.NumGoroutine(), before)
}

// tiny is an archive that a fuzzer can change much of.
func tiny(t testing.TB, c Compression) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := NewWriter(&out, c, []byte("<value/>"))
	must(t, err)
	for _, d := range []string{"Ref:3", "Ref:4"} {
		must(t, w.Disk(d, 700))
		must(t, w.Alive())
		must(t, w.Chunk(0, bytes.Repeat([]byte(d), 140)))
	}
	must(t, w.Close())
	return out.Bytes()
}

func FuzzReader(f *testing.F) {
	for _, c := range []Compression{None, Gzip, Zstd} {
		f.Add(tiny(f, c))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := newReader(bytes.NewReader(b))
		if err == nil {
			defer r.Close()
			r.Expect(map[string]int64{"Ref:3": 700, "Ref:4": 700})
			for n := 0; err == nil; n++ {
				if _, err = r.Next(); n > 2 {
					t.Fatal("more chunks than there are")
				}
			}
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, archive.ErrFormat) {
			t.Error(err)
		}
	})
}

func FuzzDiskReader(f *testing.F) {
	var out bytes.Buffer
	w, err := NewDiskWriter(&out, "vdi", 700)
	must(f, err)
	must(f, w.Run(0, bytes.Repeat([]byte("vdi"), 234)[:700]))
	must(f, w.Close())
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := NewDiskReader(bytes.NewReader(b), 3*ChunkSize)
		next := int64(0)
		for err == nil {
			var c archive.Chunk
			if c, err = r.Next(); err == nil && (c.Offset < next || c.Offset+int64(len(c.Data)) > 3*ChunkSize) {
				t.Fatalf("%d bytes at %d after %d", len(c.Data), c.Offset, next)
			}
			next = c.Offset + int64(len(c.Data))
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, archive.ErrFormat) {
			t.Error(err)
		}
	})
}
