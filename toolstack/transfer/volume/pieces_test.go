package volume_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
)

func piece(off uint64, b []byte) []byte {
	out := binary.LittleEndian.AppendUint64(nil, off)
	return append(binary.LittleEndian.AppendUint32(out, uint32(len(b))), b...)
}

// TestPieces: what comes in pieces changes those parts of the disk and no others.
func TestPieces(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ref := r.disk(8 * mib)
	want := random("full", 8*mib)
	r.put("vdi="+string(ref), want)
	a, b := bytes.Repeat([]byte("a"), 3*mib+5), make([]byte, 100<<10)
	copy(want[4*mib+3:], a)
	copy(want[7:], b)
	end := make([]byte, 12)
	query := "chunked=true&vdi=" + string(ref)
	r.put(query, bytes.Join([][]byte{piece(4*mib+3, a), piece(7, b), piece(9, nil), end}, nil))
	r.holds("in pieces", ref, want)
	for name, c := range map[string]struct {
		body []byte
		want string
	}{
		"no end":      {piece(0, want[:9]), "VDI_IO_ERROR"},
		"half a head": {end[:5], "VDI_IO_ERROR"},
		"half of one": {piece(0, want[:9])[:15], "VDI_IO_ERROR"},
		"behind it":   {append(piece(8*mib-1, a[:2]), end...), "VDI_TOO_SMALL"},
		"far away":    {append(piece(1<<64-1, a[:2]), end...), "VDI_TOO_SMALL [" + string(ref) + ", 9223372036854775807]"},
	} {
		resp, text, err := r.send("PUT", "/import_raw_vdi", query, bytes.NewReader(c.body), int64(len(c.body)))
		if err != nil || !strings.Contains(string(text), c.want) {
			t.Errorf("%s: %v %q %v", name, resp, text, err)
		}
	}
	r.holds("after all that", ref, want)
	for _, q := range []string{"format=vhd&" + query, "chunked=true&sr_id=" + string(r.sr)} {
		if resp, text, err := r.send("PUT", "/import_raw_vdi", q, bytes.NewReader(end), 12); err != nil || !strings.Contains(string(text), "INVALID_VALUE") {
			t.Errorf("%s: %v %q %v", q, resp, text, err)
		}
	}
	r.put("chunked=false&vdi="+string(ref), want[:512])
	r.holds("not in pieces", ref, want)
}
