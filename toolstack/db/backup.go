package db

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"strconv"
	"strings"

	"cairn/toolstack/api"
)

// A backup is a line that names the format, then pairs as in the engine, each
// key and value with its length before it as a varint, then an empty key and the
// SHA-256 of everything before the sum. It holds the stored form of the records,
// so whatever version can open a database can restore a backup of it.
const backupMagic = "cairn database backup 1\n"

// restoringKey is in the engine while a restore is not complete.
const restoringKey = metaPrefix + "restoring"

const (
	maxKey   = 1 << 12
	maxValue = 1 << 28
	// restoreBatch is how many bytes one commit of a restore takes.
	restoreBatch = 4 << 20
)

// ErrDamaged is the error for a backup that is not what Backup wrote.
var ErrDamaged = errors.New("backup is damaged")

// ErrNotEmpty is what Restore answers when there are objects already.
var ErrNotEmpty = errors.New("database is not empty")

// Backup writes the newest durable state to w. Transactions go on meanwhile.
func (d *DB) Backup(ctx context.Context, w io.Writer) error {
	buffered := bufio.NewWriter(w)
	sum := sha256.New()
	out := &pairWriter{w: io.MultiWriter(buffered, sum)}
	out.write([]byte(backupMagic))
	snap := d.Snapshot()
	out.pair(generationPair(snap.generation + generationBlock))
	for _, p := range d.foreign {
		out.pair(p)
	}
	if err := snap.backup(ctx, out); err != nil {
		return err
	}
	out.bytes(nil)
	if out.err == nil {
		_, out.err = buffered.Write(sum.Sum(nil))
	}
	if out.err != nil {
		return out.err
	}
	return buffered.Flush()
}

func (s *Snapshot) backup(ctx context.Context, out *pairWriter) error {
	classes := api.Classes()
	for i := range classes {
		class := &classes[i]
		if class.Volatile {
			continue
		}
		s.Objects(class, func(o *Object) bool {
			out.pair(Pair{storeKey(key{class, o.ref}), encode(o.record, o.later)})
			return out.err == nil && ctx.Err() == nil
		})
		if err := errors.Join(out.err, ctx.Err()); err != nil {
			return err
		}
	}
	return nil
}

// pairWriter keeps its first error.
type pairWriter struct {
	w      io.Writer
	length [binary.MaxVarintLen64]byte
	err    error
}

func (p *pairWriter) write(b []byte) {
	if p.err == nil {
		_, p.err = p.w.Write(b)
	}
}

func (p *pairWriter) bytes(b []byte) {
	p.write(binary.AppendUvarint(p.length[:0], uint64(len(b))))
	p.write(b)
}

func (p *pairWriter) pair(kv Pair) {
	p.bytes([]byte(kv.Key))
	p.bytes(kv.Value)
}

// Restore reads a backup to its end, and only if nothing is wrong with it writes
// it to an engine that holds no objects. A restore that is interrupted leaves
// an engine Open refuses; Restore may be called on it again.
func Restore(ctx context.Context, engine Engine, r io.Reader) error {
	pairs, err := readBackup(r)
	if err != nil {
		return err
	}
	if err := prepareRestore(ctx, engine); err != nil {
		return err
	}
	for len(pairs) > 0 {
		var b Batch
		for size := 0; len(pairs) > 0 && size < restoreBatch; pairs = pairs[1:] {
			b.Puts = append(b.Puts, pairs[0])
			size += len(pairs[0].Key) + len(pairs[0].Value)
		}
		if len(pairs) == 0 {
			b.Deletes = []string{restoringKey}
		}
		if err := engine.Commit(ctx, b); err != nil {
			return fmt.Errorf("restore: %w", err)
		}
	}
	return nil
}

// prepareRestore marks an engine without objects, and clears what an earlier
// restore left.
func prepareRestore(ctx context.Context, engine Engine) error {
	begun := false
	var b Batch
	err := engine.Load(ctx, "", func(k string, _ []byte) error {
		begun = begun || k == restoringKey
		if strings.HasPrefix(k, objectPrefix) {
			b.Deletes = append(b.Deletes, k)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(b.Deletes) > 0 && !begun {
		return ErrNotEmpty
	}
	b.Puts = []Pair{{restoringKey, []byte("1")}}
	return engine.Commit(ctx, b)
}

// readBackup reads and checks a whole backup.
func readBackup(r io.Reader) ([]Pair, error) {
	in := &pairReader{r: bufio.NewReader(r), sum: sha256.New()}
	if magic := in.read(len(backupMagic)); string(magic) != backupMagic {
		return nil, fmt.Errorf("%w: not a backup of a database", ErrDamaged)
	}
	var pairs []Pair
	seen := map[string]bool{}
	for {
		k := string(in.bytes(maxKey))
		if k == "" {
			break
		}
		v := in.bytes(maxValue)
		if in.err == nil && seen[k] {
			in.err = fmt.Errorf("%s is there twice", k)
		}
		if in.err == nil {
			in.err = checkPair(k, v)
		}
		seen[k] = true
		pairs = append(pairs, Pair{k, v})
	}
	want := in.sum.Sum(nil)
	if got := in.read(sha256.Size); in.err == nil && !bytes.Equal(got, want) {
		in.err = errors.New("the checksum is wrong")
	}
	if _, err := in.r.ReadByte(); in.err == nil && err != io.EOF {
		in.err = errors.New("it goes on after its end")
	}
	if in.err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, in.err)
	}
	return pairs, nil
}

// checkPair refuses what Open would stumble over.
func checkPair(k string, v []byte) error {
	if k == generationKey {
		_, err := strconv.ParseUint(string(v), 10, 64)
		return err
	}
	name, ref, ok := strings.Cut(strings.TrimPrefix(k, objectPrefix), "/")
	if !ok || ref == "" || !strings.HasPrefix(k, objectPrefix) {
		return fmt.Errorf("key %q is not known", k)
	}
	class := api.FindClass(name)
	if class == nil || class.New == nil {
		return nil
	}
	if _, _, err := decode(class, v); err != nil {
		return fmt.Errorf("%s: %w", k, err)
	}
	return nil
}

// pairReader keeps its first error; after it everything is empty.
type pairReader struct {
	r   *bufio.Reader
	sum hash.Hash
	err error
}

// read returns n bytes. It does not believe n before the bytes are there.
func (p *pairReader) read(n int) []byte {
	if p.err != nil {
		return nil
	}
	var b []byte
	for len(b) < n && p.err == nil {
		have := len(b)
		b = slices.Grow(b, min(n-have, 1<<16))[:have+min(n-have, 1<<16)]
		_, p.err = io.ReadFull(p.r, b[have:])
	}
	if p.err == io.EOF {
		p.err = io.ErrUnexpectedEOF
	}
	if p.err != nil {
		return nil
	}
	p.sum.Write(b)
	return b
}

func (p *pairReader) bytes(limit uint64) []byte {
	var text []byte
	n, err := binary.ReadUvarint(byteReader(func() (byte, error) {
		c, err := p.r.ReadByte()
		text = append(text, c)
		return c, err
	}))
	switch {
	case p.err != nil:
		return nil
	case err != nil:
		p.err = io.ErrUnexpectedEOF
		return nil
	case n > limit:
		p.err = fmt.Errorf("a length of %d", n)
		return nil
	}
	p.sum.Write(text)
	return p.read(int(n))
}

type byteReader func() (byte, error)

// ReadByte implements io.ByteReader.
func (f byteReader) ReadByte() (byte, error) { return f() }
