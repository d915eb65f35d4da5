package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/google/uuid"
)

// Stats is what a domain has used since it began. Counters grow, and begin anew with
// the domain. What is not known at this moment, because another job holds the domain, is
// left out.
type Stats struct {
	UUID  string
	State State
	// VCPUs is how long each virtual CPU has run, by its number.
	VCPUs  map[int]time.Duration
	Memory MemoryStats
	Disks  []DiskStats
	NICs   []NICStats
}

// DiskStats is what went through a disk.
type DiskStats struct {
	Device        string // sda, sdb, …
	Reads, Writes IOStats
}

// IOStats counts operations of one kind.
type IOStats struct {
	Requests, Bytes uint64
	Time            time.Duration // all of them together
}

// NICStats is what a guest has received and sent.
type NICStats struct {
	Tap            string // host's end: TapName(ID)
	Received, Sent uint64 // bytes
	// What was lost on the way.
	ReceiveErrors, SendErrors uint64
}

// statistics are the groups Stats asks for.
const statistics = golibvirt.DomainStatsState | golibvirt.DomainStatsVCPU | golibvirt.DomainStatsBalloon |
	golibvirt.DomainStatsBlock | golibvirt.DomainStatsInterface

// Stats implements Hypervisor. It is one call for all domains, and waits for each one's
// QEMU: one that hangs keeps the answer back. At most one question is asked at a time, so
// that those nobody answers do not pile up in libvirtd.
func (l *Libvirt) Stats(ctx context.Context) ([]Stats, error) {
	if !l.asking.CompareAndSwap(false, true) {
		return nil, fmt.Errorf("stats: %w: the last question has no answer yet", ErrBusy)
	}
	answered := sync.OnceFunc(func() { l.asking.Store(false) })
	var records []golibvirt.DomainStatsRecord
	err := l.owner.call(ctx, l.work(), "stats", func(c *golibvirt.Libvirt) error {
		defer answered()
		got, err := c.ConnectGetAllDomainStats(nil, uint32(statistics),
			uint32(golibvirt.ConnectGetAllDomainsStatsActive|golibvirt.ConnectGetAllDomainsStatsNowait))
		records = got
		return err
	})
	if errors.Is(err, ErrUnavailable) {
		answered() // it was never asked
	}
	if err != nil {
		return nil, err
	}
	all := make([]Stats, 0, len(records))
	for _, r := range records {
		if s, ok := statsFrom(r); ok {
			all = append(all, s)
		}
	}
	return all, nil
}

// statsFrom reads one record; a domain that is gone already is left out.
func statsFrom(r golibvirt.DomainStatsRecord) (Stats, bool) {
	s := Stats{UUID: uuid.UUID(r.Dom.UUID).String(), VCPUs: map[int]time.Duration{}}
	disks, nics := table[DiskStats]{}, table[NICStats]{}
	for _, p := range r.Params {
		switch v := p.Value.I.(type) {
		case int32:
			if p.Field == golibvirt.DomainStatsStateState {
				s.State = stateOf(golibvirt.DomainState(v))
			}
		case uint64:
			s.Memory.count(p.Field, v)
			if n, field, ok := numbered(p.Field, golibvirt.DomainStatsVCPUPrefix); ok && field == golibvirt.DomainStatsVCPUSuffixTime {
				s.VCPUs[n] = time.Duration(v)
			}
			disks.set(p.Field, golibvirt.DomainStatsBlockPrefix, func(d *DiskStats, field string) { d.count(field, v) })
			nics.set(p.Field, golibvirt.DomainStatsNetPrefix, func(n *NICStats, field string) { n.count(field, v) })
		case string:
			disks.set(p.Field, golibvirt.DomainStatsBlockPrefix, func(d *DiskStats, field string) {
				if field == golibvirt.DomainStatsBlockSuffixName {
					d.Device = v
				}
			})
			nics.set(p.Field, golibvirt.DomainStatsNetPrefix, func(n *NICStats, field string) {
				if field == golibvirt.DomainStatsNetSuffixName {
					n.Tap = v
				}
			})
		}
	}
	s.Disks, s.NICs = disks.rows, nics.rows
	return s, s.State != ""
}

// maxNumbered bounds what is believed of a number in an answer.
const maxNumbered = 4096

// numbered splits "vcpu.3.time" into 3 and ".time".
func numbered(field, prefix string) (n int, rest string, ok bool) {
	after, ok := strings.CutPrefix(field, prefix)
	if !ok {
		return 0, "", false
	}
	digits, _, _ := strings.Cut(after, ".")
	n, err := strconv.Atoi(digits)
	return n, after[len(digits):], err == nil && n >= 0 && n < maxNumbered
}

// table gathers the rows of devices, which come one field after another.
type table[T any] struct{ rows []T }

func (t *table[T]) set(field, prefix string, set func(row *T, field string)) {
	n, rest, ok := numbered(field, prefix)
	if !ok {
		return
	}
	for len(t.rows) <= n {
		t.rows = append(t.rows, *new(T))
	}
	set(&t.rows[n], rest)
}

func (m *MemoryStats) count(field string, kib uint64) {
	bytes := int64(kib) << 10
	switch field {
	case golibvirt.DomainStatsBalloonCurrent:
		m.Actual = bytes
	case golibvirt.DomainStatsBalloonAvailable:
		m.Total = bytes
	case golibvirt.DomainStatsBalloonUnused:
		m.Free = bytes
	case golibvirt.DomainStatsBalloonUsable:
		m.Usable = bytes
	case golibvirt.DomainStatsBalloonRss:
		m.RSS = bytes
	}
}

func (d *DiskStats) count(field string, v uint64) {
	switch field {
	case golibvirt.DomainStatsBlockSuffixRdReqs:
		d.Reads.Requests = v
	case golibvirt.DomainStatsBlockSuffixRdBytes:
		d.Reads.Bytes = v
	case golibvirt.DomainStatsBlockSuffixRdTimes:
		d.Reads.Time = time.Duration(v)
	case golibvirt.DomainStatsBlockSuffixWrReqs:
		d.Writes.Requests = v
	case golibvirt.DomainStatsBlockSuffixWrBytes:
		d.Writes.Bytes = v
	case golibvirt.DomainStatsBlockSuffixWrTimes:
		d.Writes.Time = time.Duration(v)
	}
}

func (n *NICStats) count(field string, v uint64) {
	switch field {
	case golibvirt.DomainStatsNetSuffixRxBytes:
		n.Received = v
	case golibvirt.DomainStatsNetSuffixTxBytes:
		n.Sent = v
	case golibvirt.DomainStatsNetSuffixRxErrs:
		n.ReceiveErrors = v
	case golibvirt.DomainStatsNetSuffixTxErrs:
		n.SendErrors = v
	}
}
