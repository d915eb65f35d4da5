// Package archivetest makes archives for tests of what reads them, hostile ones too.
package archivetest

import (
	"archive/tar"
	"bytes"
)

// Member is one of an archive.
type Member struct {
	Name string
	Body []byte
	// Edit, if set, changes the header, which says what it likes then.
	Edit func(*tar.Header)
}

// Pack writes members without asking whether they make sense.
func Pack(members ...Member) []byte {
	var out bytes.Buffer
	for _, m := range members {
		h := &tar.Header{Name: m.Name, Size: int64(len(m.Body)), Typeflag: tar.TypeReg, Mode: 0o600}
		if m.Edit != nil {
			m.Edit(h)
		}
		var head bytes.Buffer // of a writer of its own, which knows of no body
		if err := tar.NewWriter(&head).WriteHeader(h); err != nil {
			panic(m.Name + ": " + err.Error())
		}
		out.Write(head.Bytes())
		out.Write(m.Body)
		out.Write(make([]byte, -len(m.Body)&511))
	}
	out.Write(make([]byte, 1024))
	return out.Bytes()
}
