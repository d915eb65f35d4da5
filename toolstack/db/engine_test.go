package db_test

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"cairn/toolstack/db"
	"cairn/toolstack/db/etcd"
)

// engines run the same script; open is called again on the same place after
// each Close.
func engines(t *testing.T) map[string]func() db.Engine {
	memory := db.NewMemory()
	dir := t.TempDir()
	return map[string]func() db.Engine{
		"memory": func() db.Engine { return memory },
		"etcd": func() db.Engine {
			e, err := etcd.Open(t.Context(), etcd.Config{Dir: dir})
			if err != nil {
				t.Fatal(err)
			}
			return e
		},
	}
}

func dump(t *testing.T, e db.Engine, prefix string) string {
	t.Helper()
	var b bytes.Buffer
	err := e.Load(t.Context(), prefix, func(k string, v []byte) error {
		if len(v) > 20 {
			v = fmt.Appendf(nil, "%d bytes", len(v))
		}
		fmt.Fprintf(&b, "%s=%s ", k, v)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func TestEngineConformance(t *testing.T) {
	for name, open := range engines(t) {
		t.Run(name, func(t *testing.T) {
			e := open()
			commit := func(puts []db.Pair, deletes ...string) {
				t.Helper()
				if err := e.Commit(t.Context(), db.Batch{Puts: puts, Deletes: deletes}); err != nil {
					t.Fatal(err)
				}
			}
			want := func(prefix, want string) {
				t.Helper()
				if got := dump(t, e, prefix); got != want {
					t.Errorf("under %q: %q, want %q", prefix, got, want)
				}
			}
			reopen := func() {
				if err := e.Close(); err != nil {
					t.Fatal(err)
				}
				e = open()
			}
			want("", "")
			commit([]db.Pair{{"b/2", []byte("two")}, {"b/1", []byte("one")}, {"a", nil}})
			want("", "a= b/1=one b/2=two ")
			want("b/", "b/1=one b/2=two ")
			commit([]db.Pair{{"b/2", []byte("zwei")}}, "a", "absent")
			want("", "b/1=one b/2=zwei ")
			reopen()
			want("", "b/1=one b/2=zwei ")
			many := make([]db.Pair, 1200)
			for i := range many {
				many[i] = db.Pair{Key: fmt.Sprintf("n/%04d", i), Value: []byte{byte('0' + i%10)}}
			}
			many[7].Value = bytes.Repeat([]byte("x"), 3<<20)
			commit(many)
			reopen()
			n := 0
			var keys []string
			e.Load(t.Context(), "n/", func(k string, v []byte) error {
				n += len(v)
				keys = append(keys, k)
				return nil
			})
			if n != len(many)-1+3<<20 || !slices.IsSorted(keys) || len(keys) != len(many) {
				t.Errorf("%d bytes in %d keys", n, len(keys))
			}
			want("b/1", "b/1=one ")
			if err := e.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}
