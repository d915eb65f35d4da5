// Package proc reads what the kernel tells of a host's use in /proc: time of CPUs,
// memory, load and traffic of NICs. It only reads; hostd owns the hardware.
//
// A line it does not understand is left out, for the kernel adds fields as it likes. What
// is missing altogether is an error.
package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"
)

// Root is where the files are: os.DirFS("/proc") on a host.
type Root struct{ FS fs.FS }

// CPU is what one CPU has done since the host began.
type CPU struct{ Busy, Idle time.Duration }

// Memory is a host's, in bytes.
type Memory struct {
	Total int64
	// Available is free, or free at once when somebody needs it.
	Available int64
}

// NIC is what went through a network interface.
type NIC struct {
	Received, Sent            uint64 // bytes
	ReceiveErrors, SendErrors uint64
}

// Host is all of it at one instant.
type Host struct {
	CPUs   map[int]CPU
	Memory Memory
	Load   float64 // how many wanted to run, on average of the last minute
	NICs   map[string]NIC
}

// Read reads all that can be read; the error tells what could not.
func (r Root) Read() (h Host, err error) {
	var failed [4]error
	h.CPUs, failed[0] = read(r, "stat", parseCPUs)
	h.Memory, failed[1] = read(r, "meminfo", parseMemory)
	h.Load, failed[2] = read(r, "loadavg", parseLoad)
	h.NICs, failed[3] = read(r, "net/dev", parseNICs)
	return h, errors.Join(failed[:]...)
}

func read[T any](r Root, name string, parse func([]byte) (T, error)) (v T, err error) {
	text, err := fs.ReadFile(r.FS, name)
	if err == nil {
		v, err = parse(text)
	}
	if err != nil {
		return v, fmt.Errorf("%s: %w", name, err)
	}
	return v, nil
}

// tick is the unit of times in /proc/stat: USER_HZ is 100 on every machine this runs on.
const tick = time.Second / 100

// tickBits is as much of a time as is believed, 21 years.
const tickBits = 36

// Fields of a CPU's line, of which idle and iowait are rest. Guests' time is counted in
// user and nice already.
const (
	fieldIdle   = 3
	fieldIOWait = 4
	fieldSteal  = 7
)

// maxCPUs bounds what is believed.
const maxCPUs = 4096

func parseCPUs(text []byte) (map[int]CPU, error) {
	cpus := map[int]CPU{}
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, " ")
		n, err := strconv.Atoi(strings.TrimPrefix(name, "cpu"))
		if err != nil || n < 0 || n >= maxCPUs || !strings.HasPrefix(name, "cpu") {
			continue
		}
		fields := strings.Fields(rest)
		if len(fields) <= fieldIOWait {
			continue
		}
		var c CPU
		for i, f := range fields[:min(len(fields), fieldSteal+1)] {
			ticks, err := strconv.ParseUint(f, 10, tickBits)
			if err != nil {
				continue
			}
			if i == fieldIdle || i == fieldIOWait {
				c.Idle += time.Duration(ticks) * tick
			} else {
				c.Busy += time.Duration(ticks) * tick
			}
		}
		cpus[n] = c
	}
	if len(cpus) == 0 {
		return nil, errors.New("no CPU")
	}
	return cpus, nil
}

func parseMemory(text []byte) (m Memory, err error) {
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		kib, err := strconv.ParseInt(fields[1], 10, 52)
		if err != nil {
			continue
		}
		switch fields[0] {
		case "MemTotal:":
			m.Total = kib << 10
		case "MemAvailable:":
			m.Available = kib << 10
		}
	}
	if m.Total <= 0 {
		return m, errors.New("no MemTotal")
	}
	return m, nil
}

func parseLoad(text []byte) (float64, error) {
	first, _, _ := strings.Cut(string(text), " ")
	return strconv.ParseFloat(first, 64)
}

// Fields of an interface's line.
const (
	fieldRxBytes  = 0
	fieldRxErrors = 2
	fieldTxBytes  = 8
	fieldTxErrors = 10
	nicFields     = 16
)

func parseNICs(text []byte) (map[string]NIC, error) {
	nics := map[string]NIC{}
	for line := range strings.Lines(string(text)) {
		name, rest, ok := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if !ok || len(fields) < nicFields {
			continue // the two lines of the head
		}
		var v [nicFields]uint64
		bad := false
		for i := range v {
			n, err := strconv.ParseUint(fields[i], 10, 64)
			v[i], bad = n, bad || err != nil
		}
		if !bad {
			nics[strings.TrimSpace(name)] = NIC{v[fieldRxBytes], v[fieldTxBytes], v[fieldRxErrors], v[fieldTxErrors]}
		}
	}
	return nics, nil
}
