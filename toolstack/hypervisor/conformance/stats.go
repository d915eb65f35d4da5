package conformance

import (
	"net"
	"slices"
	"strings"
	"time"

	"cairn/toolstack/hypervisor"
)

// stats: what a guest uses shows, by the names its devices have, and grows.
func (s *script) stats() {
	disk, drive, nic := s.disk("sda"), s.drive("sdb"), s.nic()
	s.Spec.Disks, s.Spec.NICs = []hypervisor.Disk{disk, drive}, []hypervisor.NIC{nic}
	tty := s.boot()
	s.ask(tty, "fill "+disk.Serial+" 1 4")
	first, ok := s.used()
	if !ok || first.State != hypervisor.Running || len(first.VCPUs) != s.Spec.VCPUs || first.VCPUs[0] <= 0 || first.Memory.Actual <= 0 {
		s.Errorf("%+v", first)
	}
	if i := slices.IndexFunc(first.NICs, func(n hypervisor.NICStats) bool { return n.Tap == nic.Tap }); i < 0 {
		s.Errorf("no NIC %s: %+v", nic.Tap, first.NICs)
	}
	if d := find(first, "sda"); d.Writes.Bytes == 0 || s.Agent && d.Writes.Bytes < 4*mib || d.Writes.Requests == 0 || d.Writes.Time <= 0 {
		s.Errorf("the disk has %+v", d)
	}
	// What an empty drive tells about itself counts as read; it is less than a block of a CD.
	if d := find(first, "sdb"); d.Reads.Bytes >= 2048 || d.Writes.Bytes != 0 {
		s.Errorf("an empty drive has %+v", d)
	}
	s.sends(tty, nic)
	for end := time.Now().Add(s.Limit); ; {
		s.ask(tty, "sum "+disk.Serial)
		more, ok := s.used()
		if !ok || more.VCPUs[0] < first.VCPUs[0] || find(more, "sda").Reads.Bytes < find(first, "sda").Reads.Bytes {
			s.Fatalf("it went back, from %+v to %+v", first, more)
		}
		if more.VCPUs[0] > first.VCPUs[0] {
			break
		}
		if time.Now().After(end) {
			s.Fatalf("%+v does not grow", first)
		}
	}
	s.must(s.Hypervisor.Destroy(s.ctx, s.id))
	s.wait(hypervisor.Stopped, "")
	if gone, ok := s.used(); ok {
		s.Errorf("after its end there is %+v", gone)
	}
}

// sends: what the guest sends counts as sent, and not as received.
func (s *script) sends(tty net.Conn, nic hypervisor.NIC) {
	const frames, length = 5, 1000
	s.ask(tty, "ip eth0 192.0.2.2/24")
	before := s.traffic(nic)
	for range frames {
		s.ask(tty, "send eth0 ffffffffffff"+strings.ReplaceAll(nic.MAC, ":", "")+"88b5"+strings.Repeat("00", length-14))
	}
	after := s.traffic(nic)
	if sent, received := after.Sent-before.Sent, after.Received-before.Received; s.Agent && (sent < frames*length || received >= frames*length) {
		s.Errorf("the guest has sent %d bytes, and %d and %d are counted as sent and received", frames*length, sent, received)
	}
}

func (s *script) traffic(nic hypervisor.NIC) hypervisor.NICStats {
	used, _ := s.used()
	for _, n := range used.NICs {
		if n.Tap == nic.Tap {
			return n
		}
	}
	return hypervisor.NICStats{}
}

// used is what the domain reports, if it is there.
func (s *script) used() (hypervisor.Stats, bool) {
	s.Helper()
	all, err := s.Hypervisor.Stats(s.ctx)
	s.must(err)
	i := slices.IndexFunc(all, func(x hypervisor.Stats) bool { return x.UUID == s.id })
	if i < 0 {
		return hypervisor.Stats{}, false
	}
	return all[i], true
}

func find(s hypervisor.Stats, device string) hypervisor.DiskStats {
	for _, d := range s.Disks {
		if d.Device == device {
			return d
		}
	}
	return hypervisor.DiskStats{}
}
