package machine_test

import (
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"
)

// TestSilence: a client hears something of a disk of which nothing is written for a long
// while, and before the rest of it was read.
func TestSilence(t *testing.T) {
	for _, pack := range []string{"", "true", "zstd"} {
		t.Run("use_compression="+pack, func(t *testing.T) {
			r := newRig(t)
			from, vdis := r.insert("web", nil)
			_, err := r.disks.memory(vdis[0]).WriteAt(make([]byte, 6*mib), 0) // it does not know that they are zeros
			must(t, err)
			var looked, reads atomic.Int64
			r.now = func() time.Time { return time.Unix(looked.Add(1), 0) }
			heard := make(chan struct{})
			r.disks.fail = func(what string, _ int64) error {
				if what != "read" || reads.Add(1) != 4 { // the first of the second disk
					return nil
				}
				select {
				case <-heard:
				case <-time.After(20 * time.Second):
					t.Error("nothing came")
				}
				return nil
			}
			resp, err := http.Get(r.HTTP.URL + "/export?ref=" + string(from) + "&use_compression=" + pack + "&session_id=" + r.Session)
			must(t, err)
			defer resp.Body.Close()
			begin := make([]byte, 512)
			_, err = io.ReadFull(resp.Body, begin[:1])
			must(t, err)
			close(heard)
			rest, err := io.ReadAll(resp.Body)
			must(t, err)
			r.disks.fail = nil
			r.same(vdis, r.vdis(r.mustImport("", append(begin[:1], rest...))))
		})
	}
}
