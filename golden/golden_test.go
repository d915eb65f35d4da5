package golden

import (
	"path/filepath"
	"testing"
)

// recorder is a test that may fail.
type recorder struct {
	testing.TB
	failed bool
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed = true }

func TestEqual(t *testing.T) {
	path := filepath.Join(t.TempDir(), "testdata", "a.golden")
	defer func(was bool) { *update = was }(*update)
	*update = true
	Equal(t, path, "first")
	*update = false
	Equal(t, path, []byte("first"))
	r := &recorder{TB: t}
	if Equal(r, path, "second"); !r.failed || Updating() {
		t.Error("a difference is not seen")
	}
}
