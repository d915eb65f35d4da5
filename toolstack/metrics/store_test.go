package metrics

import (
	"bytes"
	"compress/gzip"
	"testing"

	"cairn/toolstack/metrics/rrd"
)

// FuzzReadSeries: whatever a file holds, it is read or refused.
func FuzzReadSeries(f *testing.F) {
	d := rrd.New()
	must(f, d.Update(begin, nil))
	f.Add(d.AppendBinary([]byte("{\"chosen\":{\"cpu0\":false}}\n")))
	must(f, d.Add(rrd.Source{Name: "g", High: 1}))
	f.Add(d.AppendBinary([]byte("{}\n"))[:1000])
	f.Fuzz(func(t *testing.T, plain []byte) {
		var packed bytes.Buffer
		z := gzip.NewWriter(&packed)
		_, err := z.Write(plain)
		must(t, err)
		must(t, z.Close())
		s, err := readSeries(&packed)
		if err == nil && (s.db == nil || s.chosen == nil) {
			t.Error("half of a series")
		}
	})
}
