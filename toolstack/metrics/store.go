package metrics

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"

	"cairn/toolstack/metrics/rrd"
)

// store keeps series as files, one each: a line of JSON with what clients have chosen,
// then the database, all compressed, with the checksum that gzip has. A file is replaced
// whole. One that cannot be read is removed, with one line in the log: figures of the
// past are not worth a host that does not start.
type store struct {
	dir  string
	log  *slog.Logger
	most int64 // bytes of all files together
}

// maxKept bounds all files together, some thousand VMs; those that were not written for
// longest give way.
const maxKept = 512 << 20

// maxStored bounds what is read of a file: a VM with every device there can be has less.
const maxStored = 64 << 20

// head is the first line of a file.
type head struct {
	Chosen map[string]bool `json:"chosen"`
}

func newSeries() *series { return &series{db: rrd.New(), chosen: map[string]bool{}} }

const suffix = ".rrd"

func (st store) path(o Owner) string {
	return filepath.Join(st.dir, string(o.Kind)+"-"+o.UUID+suffix)
}

// kept reports whether there may be a file of an owner: names of clients' making are
// never names of files.
func (st store) kept(o Owner) bool { return st.dir != "" && uuid.Validate(o.UUID) == nil }

// load reads a series, or begins one.
func (st store) load(o Owner) *series {
	if !st.kept(o) {
		return newSeries()
	}
	f, err := os.Open(st.path(o))
	if errors.Is(err, fs.ErrNotExist) {
		return newSeries()
	}
	var s *series
	if err == nil {
		s, err = readSeries(f)
		f.Close()
	}
	if err != nil {
		st.log.Warn("metrics-dropped", "of", o, "err", err)
		_ = os.Remove(st.path(o)) // what stays is found to be no better the next time
		return newSeries()
	}
	return s
}

func readSeries(r io.Reader) (*series, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(z, maxStored+1))
	if err != nil {
		return nil, err
	}
	line, rest, ok := bytes.Cut(b, []byte("\n"))
	if !ok || len(b) > maxStored {
		return nil, fmt.Errorf("%d bytes without a head", len(b))
	}
	s, h := newSeries(), head{}
	if err := json.Unmarshal(line, &h); err != nil {
		return nil, err
	}
	for name, is := range h.Chosen {
		s.chosen[name] = is
	}
	s.db, err = rrd.ReadBinary(rest)
	return s, err
}

// save replaces an owner's file.
func (st store) save(o Owner, h head, db *rrd.Database) (err error) {
	if !st.kept(o) {
		return nil
	}
	if err := os.MkdirAll(st.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(st.dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // unless it was renamed
	defer f.Close()
	line, err := json.Marshal(h)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(f)
	z, _ := gzip.NewWriterLevel(w, gzip.BestSpeed) // the level is one
	_, err = z.Write(db.AppendBinary(append(line, '\n')))
	if err = errors.Join(err, z.Close(), w.Flush(), f.Sync()); err != nil {
		return err
	}
	return os.Rename(f.Name(), st.path(o))
}

// sweep removes what is kept of owners that are no more, what a save that was cut off has
// left, and the oldest files where there are too many.
func (st store) sweep(exists func(Owner) bool) {
	if st.dir == "" {
		return
	}
	entries, err := os.ReadDir(st.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		st.log.Warn("metrics-sweep", "err", err)
	}
	var files []fs.FileInfo
	total := int64(0)
	for _, e := range entries {
		name, ours := strings.CutSuffix(e.Name(), suffix)
		kind, id, _ := strings.Cut(name, "-")
		if ours && exists(Owner{Kind(kind), id}) {
			if info, err := e.Info(); err == nil {
				files, total = append(files, info), total+info.Size()
			}
			continue
		}
		if ours || strings.HasPrefix(e.Name(), ".new-") {
			_ = os.Remove(filepath.Join(st.dir, e.Name())) // else the next sweep does
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for len(files) > 0 && total > st.most {
		_ = os.Remove(filepath.Join(st.dir, files[0].Name()))
		total -= files[0].Size()
		files = files[1:]
	}
}

// Times of writing.
const (
	// saveEvery is how much of the past a power cut may cost.
	saveEvery = time.Hour
	// saveAtOnce bounds how many are written after one look.
	saveAtOnce = 4
)
