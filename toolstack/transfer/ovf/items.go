package ovf

import (
	"fmt"
	"strconv"
)

// Controllers take so many drives; one place of SCSI is the controller's own.
const (
	onIDE  = 2
	onSCSI = 15
	ownID  = 7
)

// firstNIC is where others begin to count what is on the bus beside controllers.
const firstNIC = 7

// items is the hardware of a system, in the order of its numbers.
type items struct {
	all        []outItem
	disks, cds int
	kind       string // of SCSI
	scsi, ide  int    // the controllers under way
}

func (s System) items() []outItem {
	l := &items{kind: "lsilogic"}
	if s.Guest.Windows() {
		l.kind = "lsilogicsas" // for which Windows has a driver
	}
	cpu := outItem{Units: "hertz * 10^6", Name: fmt.Sprint(s.CPUs, " virtual CPUs"), Type: typeCPU, Quantity: s.CPUs}
	if s.CoresPerSocket > 0 {
		cpu.Cores = &cores{N: s.CoresPerSocket}
	}
	l.add(cpu)
	l.add(outItem{Units: "byte * 2^20", Name: fmt.Sprint(s.Memory>>20, " MiB of memory"), Type: typeMemory, Quantity: s.Memory >> 20})
	for _, d := range s.Drives {
		if d.CD {
			l.cd()
		} else {
			l.disk(d.Disk)
		}
	}
	for n, nic := range s.NICs {
		l.add(outItem{
			Address: nic.MAC, OnParent: strconv.Itoa(firstNIC + n), Automatic: "true", Network: nic.Network,
			Name: fmt.Sprint("Network adapter ", n+1), SubType: "E1000", Type: typeEthernet,
		})
	}
	return l.all
}

func (l *items) add(i outItem) (id int) {
	i.ID, i.Caption = len(l.all)+1, i.Name
	l.all = append(l.all, i)
	return i.ID
}

func (l *items) disk(id string) {
	bus, place := l.disks/onSCSI, l.disks%onSCSI
	if place == 0 {
		l.scsi = l.add(outItem{Address: strconv.Itoa(bus), Name: fmt.Sprint("SCSI controller ", bus), SubType: l.kind, Type: typeSCSI})
	}
	if place >= ownID {
		place++
	}
	l.disks++
	l.add(outItem{OnParent: strconv.Itoa(place), Name: fmt.Sprint("Hard disk ", l.disks), Host: "ovf:/disk/" + id, Parent: l.scsi, Type: typeDisk})
}

func (l *items) cd() {
	bus, place := l.cds/onIDE, l.cds%onIDE
	if place == 0 {
		l.ide = l.add(outItem{Address: strconv.Itoa(bus), Name: fmt.Sprint("IDE controller ", bus), Type: typeIDE})
	}
	l.cds++
	l.add(outItem{OnParent: strconv.Itoa(place), Automatic: "false", Name: fmt.Sprint("CD/DVD drive ", l.cds), Parent: l.ide, Type: typeCD})
}
