package ovf

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"regexp"
	"strings"

	"cairn/toolstack/transfer/archive"
)

// algorithms of digests. The first is what is written; the last is known only from a
// manifest in front of what it speaks of: nobody hashes three times for it.
var algorithms = []struct {
	name  string
	make  func() hash.Hash
	ahead bool
}{{"SHA256", sha256.New, false}, {"SHA1", sha1.New, false}, {"SHA512", sha512.New, true}}

// entry is a line of a manifest.
var entry = regexp.MustCompile(`^(SHA[0-9]+) ?\((.+)\) ?= ?([0-9a-fA-F]+)$`)

// line writes one.
func line(name string, sum []byte) string {
	return fmt.Sprintf("%s(%s)= %s\n", algorithms[0].name, name, hex.EncodeToString(sum))
}

// manifest compares the digests of members with those that are told.
type manifest struct {
	told map[string]told   // by name; nil until it has come
	had  map[string]digest // of members that came before it
}

type told struct{ algorithm, sum string }

// digest is what is made of a member on its way.
type digest map[string]hash.Hash // by algorithm

// Write implements io.Writer.
func (d digest) Write(p []byte) (int, error) {
	for _, h := range d {
		h.Write(p)
	}
	return len(p), nil
}

// begin is the digest that a member is to be compared by.
func (m *manifest) begin(name string) digest {
	d := digest{}
	for _, a := range algorithms {
		if t, ok := m.told[name]; m.told == nil && !a.ahead || ok && t.algorithm == a.name {
			d[a.name] = a.make()
		}
	}
	return d
}

// end compares a member that is complete, or keeps its digest until the manifest comes.
func (m *manifest) end(name string, d digest) error {
	if m.told == nil {
		m.had[name] = d
		return nil
	}
	t, ok := m.told[name]
	if !ok {
		return nil
	}
	delete(m.told, name)
	h, ok := d[t.algorithm]
	if !ok {
		return archive.Malformed("the %s of %.80q cannot be compared: the manifest comes too late", t.algorithm, name)
	}
	if sum := hex.EncodeToString(h.Sum(nil)); !strings.EqualFold(sum, t.sum) {
		return fmt.Errorf("%w: that of %.80q is %s, and %.80q is told", archive.ErrChecksum, name, sum, t.sum)
	}
	return nil
}

// read takes the manifest, and compares what came before it.
func (m *manifest) read(r io.Reader) error {
	b, err := io.ReadAll(r)
	if err != nil {
		return err
	}
	if m.told != nil {
		return archive.Malformed("two manifests")
	}
	m.told = map[string]told{}
	lines := bufio.NewScanner(bytes.NewReader(b))
	for lines.Scan() {
		text := strings.TrimSpace(lines.Text())
		if text == "" {
			continue
		}
		f := entry.FindStringSubmatch(text)
		if f == nil || !known(f[1]) {
			return archive.Malformed("the manifest says %.80q", text)
		}
		name, err := plain(f[2])
		if err != nil {
			return err
		}
		if _, twice := m.told[name]; twice {
			return archive.Malformed("the manifest speaks of %.80q twice", name)
		}
		m.told[name] = told{f[1], f[3]}
	}
	for name, d := range m.had {
		if err := m.end(name, d); err != nil {
			return err
		}
	}
	m.had = nil
	return lines.Err()
}

func known(algorithm string) bool {
	for _, a := range algorithms {
		if a.name == algorithm {
			return true
		}
	}
	return false
}

// missing reports whether the manifest speaks of members that have not come.
func (m *manifest) missing() bool { return len(m.told) > 0 }
