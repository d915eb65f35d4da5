package memory

import (
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// BenchmarkLedger reads the ledger of a pool of 64 hosts and 5000 guests, as each
// start does.
func BenchmarkLedger(b *testing.B) {
	d, err := db.Open(b.Context(), db.NewMemory(), db.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	var hosts []api.HostRef
	for range 64 {
		hosts = append(hosts, api.NewRef[api.Host]())
	}
	err = d.Update(b.Context(), func(tx *db.Tx) error {
		for i := range 5000 {
			vm := api.NewVM()
			vm.ResidentOn, vm.Metrics = hosts[i%len(hosts)], db.Insert(tx, api.NewVMMetrics())
			vm.MemoryStaticMax = 1 << 30
			db.Insert(tx, vm)
		}
		return nil
	})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if len(ledger(d.Snapshot())) != len(hosts) {
			b.Fatal("hosts are missing")
		}
	}
}
