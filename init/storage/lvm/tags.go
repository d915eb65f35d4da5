package lvm

import (
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Meta is what a volume's tags say of it.
type Meta struct {
	// Draft volumes are being made, and of nobody once who made them is gone.
	Draft   bool
	Format  string
	Size    int64 // virtual
	Backing string
	Note    string
}

// Tags begin with a word of ours. LVM allows letters, digits and _+.-/=!:&# in
// them, and 1024 bytes each, so a note is cut into pieces of base64.
const (
	tagDraft   = "cairn.draft"
	tagFormat  = "cairn.format="
	tagSize    = "cairn.size="
	tagBacking = "cairn.backing="
	tagNote    = "cairn.note." // number, "=", piece
	piece      = 960
	maxPieces  = 16
)

var encoding = base64.RawURLEncoding

// Tags writes a volume's meta data as tags.
func (m Meta) Tags() []string {
	tags := []string{tagFormat + m.Format, tagSize + strconv.FormatInt(m.Size, 10)}
	if m.Draft {
		tags = append(tags, tagDraft)
	}
	if m.Backing != "" {
		tags = append(tags, tagBacking+m.Backing)
	}
	for i, p := range slices.Collect(slices.Chunk([]byte(encoding.EncodeToString([]byte(m.Note))), piece)) {
		tags = append(tags, fmt.Sprintf("%s%d=%s", tagNote, i, p))
	}
	slices.Sort(tags)
	return tags
}

// ParseTags reads tags back. Those of others mean nothing to it; a volume without
// a format of ours is not one of ours.
func ParseTags(tags []string) (Meta, error) {
	var m Meta
	pieces := map[int]string{}
	for _, t := range tags {
		if t == tagDraft {
			m.Draft = true
		} else if v, ok := strings.CutPrefix(t, tagFormat); ok {
			m.Format = v
		} else if v, ok := strings.CutPrefix(t, tagBacking); ok {
			m.Backing = v
		} else if v, ok := strings.CutPrefix(t, tagSize); ok {
			n, err := strconv.ParseInt(v, 10, 64)
			if err != nil || n < 0 {
				return m, fmt.Errorf("tag %s is not a size", t)
			}
			m.Size = n
		} else if v, ok := strings.CutPrefix(t, tagNote); ok {
			number, text, _ := strings.Cut(v, "=")
			i, err := strconv.Atoi(number)
			if err != nil || i < 0 || i >= maxPieces {
				return m, fmt.Errorf("tag %s is not part of a note", tagNote+number)
			}
			pieces[i] = text
		}
	}
	var err error
	m.Note, err = joinNote(pieces)
	if err == nil && m.Format != "qcow2" && m.Format != "raw" && m.Format != "log" {
		err = fmt.Errorf("format %q is not known", m.Format)
	}
	return m, err
}

func joinNote(pieces map[int]string) (string, error) {
	var b strings.Builder
	for i := range len(pieces) {
		p, ok := pieces[i]
		if !ok {
			return "", fmt.Errorf("part %d of the note is missing", i)
		}
		b.WriteString(p)
	}
	text, err := encoding.DecodeString(b.String())
	if err != nil {
		return "", fmt.Errorf("the note cannot be read: %w", err)
	}
	return string(text), nil
}
