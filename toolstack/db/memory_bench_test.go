package db

import (
	"fmt"
	"runtime"
	"testing"

	"cairn/toolstack/api"
)

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// BenchmarkEncodedMemory shows what keeping the encoded forms of 4,000 VMs with
// three devices each costs beside the records themselves.
func BenchmarkEncodedMemory(b *testing.B) {
	for b.Loop() {
		before := heap()
		d, err := Open(b.Context(), NewMemory(), Options{})
		if err != nil {
			b.Fatal(err)
		}
		fillVMs(b, d, 4000)
		records := heap()
		sizes := map[api.Encoding]int64{}
		for _, e := range []api.Encoding{api.JSON, api.XML} {
			encodeAll(d.Snapshot(), e)
			now := heap()
			sizes[e] = now - records - sizes[api.JSON]
		}
		const mib = 1 << 20
		b.ReportMetric(float64(records-before)/mib, "MiB-records")
		b.ReportMetric(float64(sizes[api.JSON])/mib, "MiB-JSON")
		b.ReportMetric(float64(sizes[api.XML])/mib, "MiB-XML")
		d.Close()
	}
}

func encodeAll(s *Snapshot, e api.Encoding) {
	var buf []byte
	classes := api.Classes()
	for i := range classes {
		s.Objects(&classes[i], func(o *Object) bool {
			buf = o.AppendRecord(buf[:0], e)
			return true
		})
	}
}

func fillVMs(tb testing.TB, d *DB, n int) {
	tb.Helper()
	err := d.Update(tb.Context(), func(tx *Tx) error {
		for i := range n {
			vm := api.NewVM()
			vm.NameLabel = fmt.Sprintf("vm-%d", i)
			vm.OtherConfig = map[string]string{"mac_seed": api.NewUUID(), "install-distro": "debian"}
			ref := Insert(tx, vm)
			vbd, vif, metrics := api.NewVBD(), api.NewVIF(), api.NewVMMetrics()
			vbd.VM, vif.VM = ref, ref
			Insert(tx, vbd)
			Insert(tx, vif)
			Insert(tx, metrics)
		}
		return nil
	})
	if err != nil {
		tb.Fatal(err)
	}
}
