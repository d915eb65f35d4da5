package ovf

import (
	"archive/tar"
	"bytes"
	"crypto/sha1"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/transfer/archive"
	"cairn/toolstack/transfer/archive/archivetest"
	"cairn/toolstack/transfer/vhd"
	"cairn/toolstack/transfer/vmdk"
)

const capacity = 3<<20 + 512

// content is a disk's: full, sparse or empty.
func content(kind string) []byte {
	b, r := make([]byte, capacity), rand.NewChaCha8([32]byte{7})
	switch kind {
	case "full":
		r.Read(b)
	case "sparse":
		r.Read(b[1<<20 : 1<<20+700])
		r.Read(b[capacity-100:])
	}
	return b
}

// written writes a disk down in a format.
func written(t testing.TB, f Format, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	switch f {
	case Raw:
		return b
	case VMDK:
		w, err := vmdk.NewWriter(&out, int64(len(b)), 1)
		must(t, err)
		must(t, errors.Join(w.Run(0, b), w.Close()))
	case VHD:
		var blocks []int64
		for n := range (int64(len(b)) + vhd.BlockSize - 1) / vhd.BlockSize {
			blocks = append(blocks, n)
		}
		w, err := vhd.NewWriter(&out, vhd.Info{Kind: vhd.Dynamic, Size: int64(len(b)), Made: time.Unix(1<<30, 0)}, blocks)
		must(t, err)
		for _, n := range blocks {
			must(t, w.Block(n, b[n*vhd.BlockSize:min(int64(len(b)), (n+1)*vhd.BlockSize)], nil))
		}
		must(t, w.Close())
	}
	return out.Bytes()
}

type member = archivetest.Member

// descriptor is one of disks of one size in files, and of one disk without any.
func descriptor(names ...string) member {
	var files, disks, drives string
	for n, name := range names {
		files += fmt.Sprintf(`<File ovf:id="f%d" ovf:href="%s"/>`, n, name)
		disks += fmt.Sprintf(`<Disk ovf:diskId="d%d" ovf:fileRef="f%d" ovf:capacity="%d"/>`, n, n, capacity)
		drives += hardwareOf(typeDisk, fmt.Sprintf(`<rasd:HostResource>ovf:/disk/d%d</rasd:HostResource>`, n))
	}
	disks += `<Disk ovf:diskId="blank" ovf:capacity="4096"/>`
	return member{Name: "x.ovf", Body: []byte(describing(files, disks, drives))}
}

// sums is a manifest as somebody writes it.
func sums(form string, members ...member) member {
	var b strings.Builder
	for _, m := range members {
		switch {
		case strings.HasPrefix(form, "SHA1"):
			s := sha1.Sum(m.Body)
			fmt.Fprintf(&b, form, m.Name, hex.EncodeToString(s[:]))
		case strings.HasPrefix(form, "SHA512"):
			s := sha512.Sum512(m.Body)
			fmt.Fprintf(&b, form, m.Name, strings.ToUpper(hex.EncodeToString(s[:])))
		default:
			d := (&manifest{}).begin(m.Name)
			d.Write(m.Body)
			fmt.Fprintf(&b, form, m.Name, hex.EncodeToString(d["SHA256"].Sum(nil)))
		}
	}
	return member{Name: "x.mf", Body: []byte(b.String())}
}

const sha256Line = "SHA256(%s)= %s\n"

// read returns the disks of an archive, and the order in which they began.
func read(b []byte, wanted ...string) (disks map[string][]byte, order []string, err error) {
	a, err := archive.Open(bytes.NewReader(b))
	if err != nil {
		return nil, nil, err
	}
	defer a.Close()
	v, err := From(a)
	if err != nil {
		return nil, nil, err
	}
	sizes := map[string]int64{}
	for _, id := range wanted {
		sizes[id] = 0
	}
	v.Expect(sizes)
	disks = map[string][]byte{}
	for {
		c, err := v.Next()
		if errors.Is(err, io.EOF) {
			return disks, order, nil
		}
		if err != nil {
			return disks, order, err
		}
		if disks[c.Disk] == nil {
			disk, ok := v.Descriptor().Find(c.Disk)
			if !ok || disk.Capacity > 1<<24 {
				return disks, order, errors.New("a disk that nobody can want")
			}
			disks[c.Disk], order = make([]byte, disk.Capacity), append(order, c.Disk)
		}
		if c.Offset < 0 || c.Offset+int64(len(c.Data)) > int64(len(disks[c.Disk])) {
			return disks, order, fmt.Errorf("%d bytes at %d", len(c.Data), c.Offset)
		}
		copy(disks[c.Disk][c.Offset:], c.Data)
	}
}

var all = []string{"d0", "d1", "d2", "blank"}

// TestFormats reads each kind of disk in each kind of image.
func TestFormats(t *testing.T) {
	for _, kind := range []string{"full", "sparse", "empty"} {
		b := content(kind)
		d := descriptor("a.vmdk", "b.vhd", "c.raw")
		files := []member{d, {Name: "a.vmdk", Body: written(t, VMDK, b)}, {Name: "b.vhd", Body: written(t, VHD, b)}, {Name: "c.raw", Body: bytes.TrimRight(b, "\x00")}}
		disks, order, err := read(archivetest.Pack(append(files, sums(sha256Line, files...))...), all...)
		if err != nil || !slices.Equal(order, all) || len(disks["blank"]) != 4096 {
			t.Errorf("%s: %v, %v", kind, order, err)
		}
		for _, id := range all[:3] {
			if !bytes.Equal(disks[id], b) {
				t.Errorf("%s: the disk %s reads as something else", kind, id)
			}
		}
		disks, order, err = read(archivetest.Pack(files...), "d1")
		if err != nil || !slices.Equal(order, []string{"d1"}) || !bytes.Equal(disks["d1"], b) {
			t.Errorf("%s: the one that is wanted: %v, %v", kind, order, err)
		}
	}
}

// TestOrders: only the descriptor is always in front.
func TestOrders(t *testing.T) {
	d, b := descriptor("a.raw", "b.raw"), content("sparse")
	first, second := member{Name: "a.raw", Body: b}, member{Name: "b.raw", Body: b[:1<<20]}
	other := member{Name: "x.cert", Body: []byte("-----BEGIN")}
	for _, form := range []string{sha256Line, "SHA1 (%s) = %s\r\n", "SHA1(%s)=%s\n\n", "SHA512(%s)= %s\n"} {
		mf := sums(form, d, first, second, other)
		for _, members := range [][]member{
			{d, mf, other, first, second}, {d, mf, second, other, first}, {d, second, mf, first, other}, {d, second, first, other, mf}, {{Name: "./x.ovf", Body: d.Body}, mf, first, {Name: "./b.raw", Body: second.Body}, other},
		} {
			at := slices.IndexFunc(members, func(m member) bool { return m.Name == "x.mf" })
			_, order, err := read(archivetest.Pack(members...), "d0", "d1")
			if late := strings.HasPrefix(form, "SHA512") && at > 0; late {
				if !errors.Is(err, archive.ErrFormat) || errors.Is(err, archive.ErrChecksum) {
					t.Errorf("%q: a manifest that comes too late: %v", form, err)
				}
				continue
			}
			if err != nil || len(order) != 2 {
				t.Errorf("%q, the manifest is member %d: %v, %v", form, at, order, err)
			}
		}
	}
}

// TestDigests: one bit anywhere is told, wherever the manifest stands.
func TestDigests(t *testing.T) {
	d := descriptor("a.raw", "b.raw")
	files := []member{d, {Name: "a.raw", Body: content("full")}, {Name: "b.raw", Body: content("full")}, {Name: "x.cert", Body: []byte("y")}}
	for _, form := range []string{sha256Line, "SHA1(%s)= %s\n"} {
		mf := sums(form, files...)
		for at := range files {
			spoilt := slices.Clone(files)
			spoilt[at].Body = bytes.Clone(spoilt[at].Body)
			end := len(spoilt[at].Body) - 1
			spoilt[at].Body[end] ^= 1
			if at == 0 {
				spoilt[at].Body = append(bytes.Clone(d.Body), '\n')
			}
			for _, members := range [][]member{append(slices.Clone(spoilt), mf), slices.Insert(slices.Clone(spoilt), 1, mf)} {
				if _, _, err := read(archivetest.Pack(members...), "d0", "d1"); !errors.Is(err, archive.ErrChecksum) {
					t.Errorf("%s is spoilt: %v", files[at].Name, err)
				}
			}
		}
	}
}

// TestWritten: what is written is what is read, as long as was said.
func TestWritten(t *testing.T) {
	d, vmdk := descriptor("a.vmdk"), written(t, VMDK, content("sparse"))
	var out bytes.Buffer
	w, err := NewWriter(&out, d.Name, d.Body)
	must(t, err)
	must(t, w.Begin("a.vmdk", int64(len(vmdk))))
	_, err = w.Write(vmdk)
	must(t, errors.Join(err, w.Close("x.mf")))
	if want := Length(File{Name: d.Name, Size: int64(len(d.Body))}, File{Name: "a.vmdk", Size: int64(len(vmdk))}); int64(out.Len()) != want {
		t.Errorf("%d bytes, %d were said", out.Len(), want)
	}
	disks, _, err := read(out.Bytes(), "d0")
	if err != nil || !bytes.Equal(disks["d0"], content("sparse")) {
		t.Error(err)
	}
	in := tar.NewReader(&out)
	for _, want := range []string{"x.ovf", "a.vmdk", "x.mf"} {
		if h, err := in.Next(); err != nil || h.Name != want || h.Format != tar.FormatUSTAR {
			t.Errorf("%+v, %v", h, err)
		}
	}
	if h := header("a", 1<<40); h.Format != tar.FormatGNU {
		t.Error("a TiB in the tar of POSIX")
	}
	out.Reset()
	w, err = NewWriter(&out, d.Name, d.Body)
	must(t, err)
	must(t, w.Begin("a.vmdk", 3))
	if _, err := w.Write([]byte("four")); err == nil {
		t.Error("more than was said is written")
	}
}

// slim is a VMDK without what comes before its grains: what a fuzzer is to change.
func slim(t testing.TB, b []byte) []byte {
	t.Helper()
	const header, overhead = 512, 128 * 512
	image := written(t, VMDK, b)
	image = append(image[:header:header], image[overhead:]...)
	copy(image[28:], make([]byte, 16)) // no text
	copy(image[64:], []byte{1})        // the first grain lies behind the header
	return image
}

func FuzzReader(f *testing.F) {
	var small bytes.Buffer
	w, err := vhd.NewWriter(&small, vhd.Info{Kind: vhd.Dynamic, Size: 4096, Made: time.Unix(1<<30, 0)}, nil)
	must(f, err)
	must(f, w.Close())
	d := descriptor("a.vmdk", "b.vhd", "c.raw")
	files := []member{d, {Name: "a.vmdk", Body: slim(f, content("sparse"))}, {Name: "b.vhd", Body: small.Bytes()}, {Name: "c.raw", Body: []byte("raw")}, {Name: "x.cert", Body: nil}}
	mf := sums(sha256Line, files...)
	whole := archivetest.Pack(append(files, mf)...)
	if _, order, err := read(whole, all...); err != nil || len(order) != len(all) || len(whole) > 30_000 {
		f.Fatalf("%v, %v, %d bytes", order, err, len(whole))
	}
	f.Add(whole)
	f.Add(archivetest.Pack(slices.Insert(slices.Clone(files), 1, mf)...))
	f.Add(archivetest.Pack(d, member{Name: "c.raw", Body: []byte("raw")}))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := archive.Open(bytes.NewReader(b))
		if err == nil {
			defer a.Close()
			var v *Reader
			if v, err = From(a); err == nil {
				err = drain(t, v)
			}
		}
		if !errors.Is(err, io.EOF) && !errors.Is(err, archive.ErrFormat) {
			t.Error(err)
		}
	})
}

// drain reads all there is, and looks whether it lies in its disk.
func drain(t *testing.T, v *Reader) error {
	sizes := map[string]int64{}
	for _, disk := range v.Descriptor().Disks {
		sizes[disk.ID] = disk.Capacity
	}
	v.Expect(sizes)
	for {
		c, err := v.Next()
		if err != nil {
			return err
		}
		if size, ok := sizes[c.Disk]; !ok || c.Offset < 0 || c.Offset+int64(len(c.Data)) > size {
			t.Fatalf("%d bytes at %d of %q", len(c.Data), c.Offset, c.Disk)
		}
	}
}
