package wire_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire/wiretest"
)

// BenchmarkGetAllRecords answers 1,000 VMs; one of them changed since the call
// before, as on a host that lives.
func BenchmarkGetAllRecords(b *testing.B) {
	var first api.VMRef
	s := wiretest.New(b, func(_ *api.Registry, d *db.DB) {
		d.Update(b.Context(), func(tx *db.Tx) error {
			for i := range 1000 {
				vm := api.NewVM()
				vm.NameLabel = fmt.Sprint("vm ", i)
				vm.OtherConfig = map[string]string{"a": "b", "folder": "/x/y"}
				first = db.Insert(tx, vm)
			}
			return nil
		})
	})
	for _, c := range []struct{ name, path, body string }{
		{"json", "/jsonrpc", `{"jsonrpc":"2.0","method":"VM.get_all_records","params":["` + s.Session + `"],"id":1}`},
		{"xml", "/RPC2", `<methodCall><methodName>VM.get_all_records</methodName><params><param><value>` + s.Session + `</value></param></params></methodCall>`},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				s.DB.Update(b.Context(), func(tx *db.Tx) error {
					vm, err := db.Edit(tx, first)
					if err == nil {
						vm.UserVersion++
					}
					return err
				})
				resp, err := http.Post(s.HTTP.URL+c.path, "text/xml", strings.NewReader(c.body))
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if err != nil {
					b.Fatal(err)
				}
				b.SetBytes(n)
			}
		})
	}
}
