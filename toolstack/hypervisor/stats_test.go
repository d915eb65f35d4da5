package hypervisor

import (
	"errors"
	"reflect"
	"testing"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
)

func param(field string, v any) golibvirt.TypedParam {
	return golibvirt.TypedParam{Field: field, Value: golibvirt.TypedParamValue{I: v}}
}

func TestStatsFrom(t *testing.T) {
	r := golibvirt.DomainStatsRecord{Dom: golibvirt.Domain{UUID: golibvirt.UUID{15: 7}}, Params: []golibvirt.TypedParam{
		param("state.state", int32(golibvirt.DomainRunning)), param("balloon.current", uint64(2048)), param("balloon.unused", uint64(512)),
		param("vcpu.current", uint64(2)), param("vcpu.0.time", uint64(5e9)), param("vcpu.2.time", uint64(1)), param("vcpu.0.state", int32(1)), param("vcpu.x.time", uint64(1)),
		param("block.count", uint64(2)), param("block.0.name", "sda"), param("block.0.rd.reqs", uint64(3)), param("block.0.rd.bytes", uint64(4096)),
		param("block.0.rd.times", uint64(1e6)), param("block.0.wr.bytes", uint64(9)), param("block.1.name", "sdb"), param("block.99999.name", "sdc"),
		param("net.count", uint64(1)), param("net.0.name", "cv1"), param("net.0.rx.bytes", uint64(7)), param("net.0.tx.bytes", uint64(8)), param("net.0.tx.errs", uint64(1)),
		param("net.-1.name", "x"), param("block.", uint64(0)), param("vcpu.", uint64(1)),
	}}
	got, ok := statsFrom(r)
	want := Stats{
		UUID: "00000000-0000-0000-0000-000000000007", State: Running, VCPUs: map[int]time.Duration{0: 5 * time.Second, 2: 1},
		Memory: MemoryStats{Actual: 2 << 20, Free: 512 << 10},
		Disks:  []DiskStats{{Device: "sda", Reads: IOStats{3, 4096, time.Millisecond}, Writes: IOStats{Bytes: 9}}, {Device: "sdb"}},
		NICs:   []NICStats{{Tap: "cv1", Received: 7, Sent: 8, SendErrors: 1}},
	}
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if _, ok := statsFrom(golibvirt.DomainStatsRecord{}); ok {
		t.Error("a domain without a state is there")
	}
}

// TestStatsDoNotPileUp: while one question has no answer, no other is asked; one that
// could not be asked stands in nobody's way.
func TestStatsDoNotPileUp(t *testing.T) {
	l := &Libvirt{cfg: Config{Limits: quick}, owner: &owner{cfg: Config{Limits: quick}, changed: make(chan struct{}), done: make(chan struct{})}}
	for range 2 {
		if _, err := l.Stats(t.Context()); !errors.Is(err, ErrUnavailable) {
			t.Errorf("without libvirt: %v", err)
		}
	}
	l.asking.Store(true)
	if _, err := l.Stats(t.Context()); !errors.Is(err, ErrBusy) {
		t.Errorf("while one is asked: %v", err)
	}
}

func FuzzNumbered(f *testing.F) {
	f.Add("vcpu.3.time")
	f.Add("vcpu..")
	f.Fuzz(func(t *testing.T, field string) {
		n, rest, ok := numbered(field, "vcpu.")
		if ok && (n < 0 || n >= maxNumbered || len(rest) > len(field)) {
			t.Errorf("%q is %d %q", field, n, rest)
		}
	})
}
