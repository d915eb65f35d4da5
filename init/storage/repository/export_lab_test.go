//go:build lab

package repository

import (
	"context"
	"errors"
	"io"
	"testing"

	"cairn/init/hostd/client"
)

// TestRealExport: the real qemu-nbd, confined and as QEMU's user, opens a chain that it
// was told of and greets whoever comes; it ends when it is asked to, though nobody spoke
// with it.
func TestRealExport(t *testing.T) {
	m, dir := realManager(t)
	_, err := m.Format(t.Context(), srA, fileConfig(dir+"/sr/one"))
	must(t, err)
	_, err = m.Attach(t.Context(), srA, fileConfig(dir+"/sr/one"))
	must(t, err)
	make64(t, m, srA, "base", "")
	make64(t, m, srA, "top", "base")
	for _, write := range []bool{false, true} {
		l := borrow(t, m, "top", client.ExportRequest{Layers: []string{"base"}, Writable: write})
		l.dial(t)
		greeting := make([]byte, 8)
		if _, err := io.ReadFull(l, greeting); err != nil || string(greeting) != "NBDMAGIC" {
			t.Errorf("%q, %v", greeting, err)
		}
		l.Close()
		m.EndExport(l.ID)
		must(t, <-l.ended)
		l = borrow(t, m, "top", client.ExportRequest{Layers: []string{"base"}, Writable: write})
		m.EndExport(l.ID)
		if err := <-l.ended; err != nil && !errors.Is(err, context.Canceled) { // before it began
			t.Error(err)
		}
	}
	c, err := m.CheckVolume(t.Context(), srA, "top")
	if err != nil || c.Errors != 0 || c.Leaks != 0 {
		t.Errorf("%+v, %v", c, err)
	}
	must(t, m.Detach(t.Context(), srA))
}
