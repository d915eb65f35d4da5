package ovf

import (
	"archive/tar"
	"errors"
	"io"
	"path"
	"strings"

	"cairn/toolstack/transfer/archive"
)

// Bounds of members of which a descriptor does not speak: certificates, texts in other
// languages, what firmware remembers.
const (
	maxOthers = 64
	maxOther  = 1 << 20
)

// Reader reads an archive from front to back.
type Reader struct {
	from     *archive.Reader
	d        *Descriptor
	manifest manifest
	seen     map[string]bool
	others   int
	files    map[string]File // by name
	disks    map[string]Disk // that are wanted and have not begun, by file name
	blank    []string        // wanted disks without content that were not told yet

	name   string // of the member under way
	sum    digest
	member io.Reader
	image  image  // nil if the member is none
	disk   string // whose it is
}

// From reads the descriptor of an archive that was opened, and is closed by whoever did.
func From(a *archive.Reader) (*Reader, error) {
	v := &Reader{from: a, manifest: manifest{had: map[string]digest{}}, seen: map[string]bool{}, files: map[string]File{}, disks: map[string]Disk{}}
	h, err := v.next()
	if err != nil {
		return nil, archive.NotEOF(err)
	}
	switch {
	case !Descriptive(h.Name):
		return nil, &archive.UnexpectedError{Want: "*" + suffixOVF, Found: h.Name}
	case h.Size > maxDescriptor:
		return nil, archive.Malformed("%.80q has %d bytes", h.Name, h.Size)
	}
	b, err := io.ReadAll(v.member)
	if err != nil {
		return nil, err
	}
	if v.d, err = Parse(b); err != nil {
		return nil, err
	}
	for _, f := range v.d.Files {
		v.files[f.Name] = f
	}
	return v, v.finish()
}

// Descriptor is what the archive says of itself.
func (v *Reader) Descriptor() *Descriptor { return v.d }

// Expect says which disks are wanted; of the others nothing is read but their digests.
func (v *Reader) Expect(sizes map[string]int64) {
	for _, disk := range v.d.Disks {
		if _, ok := sizes[disk.ID]; !ok {
			continue
		}
		if f, ok := v.d.file(disk.File); ok {
			v.disks[f.Name] = disk
		} else {
			v.blank = append(v.blank, disk.ID)
		}
	}
}

// Next returns the next bytes of a wanted disk, io.EOF after the last; what is left out
// is zero. Disks come one after another, each with one chunk at least.
func (v *Reader) Next() (archive.Chunk, error) {
	for {
		if v.image != nil {
			at, data, err := v.image()
			if !errors.Is(err, io.EOF) {
				return archive.Chunk{Disk: v.disk, Offset: at, Data: data}, v.wrong(err)
			}
		}
		if err := v.finish(); err != nil {
			return archive.Chunk{}, err
		}
		h, err := v.next()
		if errors.Is(err, io.EOF) {
			return v.end()
		}
		if err == nil {
			err = v.begin(h)
		}
		if err != nil {
			return archive.Chunk{}, err
		}
		if v.image != nil {
			return archive.Chunk{Disk: v.disk}, nil
		}
	}
}

// next goes to the next member, whose name it takes down.
func (v *Reader) next() (*tar.Header, error) {
	h, err := v.from.Next()
	if err != nil {
		return nil, err
	}
	name, err := plain(h.Name)
	switch {
	case err != nil:
		return nil, err
	case v.seen[name]:
		return nil, archive.Malformed("%.80q comes twice", name)
	}
	v.seen[name] = true
	v.name, v.sum = name, v.manifest.begin(name)
	v.member = io.TeeReader(v.from, v.sum)
	return h, nil
}

// begin decides what to do with a member.
func (v *Reader) begin(h *tar.Header) error {
	file, listed := v.files[v.name]
	disk, wanted := v.disks[v.name]
	switch {
	case listed && file.Size != Unknown && file.Size != h.Size:
		return archive.Malformed("%.80q has %d bytes and is said to have %d", v.name, h.Size, file.Size)
	case wanted:
		delete(v.disks, v.name)
		var err error
		v.disk = disk.ID
		v.image, err = open(disk, v.member, h.Size)
		return v.wrong(err)
	case listed:
		return nil
	case h.Size > maxOther:
		return archive.Malformed("%.80q has %d bytes, and nothing is said of it", v.name, h.Size)
	case v.others == maxOthers:
		return archive.Malformed("more than %d files of which nothing is said", maxOthers)
	case strings.EqualFold(path.Ext(v.name), suffixMF):
		return v.manifest.read(v.member)
	}
	v.others++
	return nil
}

// finish reads what is left of a member and compares its digest.
func (v *Reader) finish() error {
	if v.member == nil {
		return nil
	}
	if _, err := io.Copy(io.Discard, v.member); err != nil {
		return err
	}
	v.member, v.image = nil, nil
	return v.manifest.end(v.name, v.sum)
}

// end says whether the archive is complete, and only then tells disks without content.
// One without a manifest could be cut in front of it: then it must say itself where it
// ends.
func (v *Reader) end() (archive.Chunk, error) {
	switch {
	case len(v.disks) > 0 || v.manifest.missing() || v.manifest.told == nil && !v.from.Marked():
		return archive.Chunk{}, archive.ErrShort
	case len(v.blank) == 0:
		return archive.Chunk{}, io.EOF
	}
	c := archive.Chunk{Disk: v.blank[0]}
	v.blank = v.blank[1:]
	return c, nil
}
