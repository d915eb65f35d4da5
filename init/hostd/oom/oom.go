// Package oom reads in the kernel's log whose emulator was killed because memory
// ran out: that of the whole host, or what a guest's control group may use.
//
// It trusts nothing in the log to be well-formed. Parse is a pure function.
package oom

import (
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Kill is a guest's emulator that the kernel killed.
type Kill struct {
	Guest string // UUID
	PID   int
	At    time.Duration // since the kernel's start
}

var (
	// stamp is a line's time, behind its level.
	stamp = regexp.MustCompile(`^(?:<\d+>)?\[ *(\d{1,9})\.(\d{6})\]`)
	// domain is a control group that libvirt made: its number of the domain, then the
	// domain's name, which is the UUID.
	domain = regexp.MustCompile(`/qemu-\d+-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.libvirt-qemu(?:/|$)`)
)

// Parse finds the kills of guests, oldest first. What else was killed, such as a
// guest's TPM, is left out; so is a line that does not say when.
func Parse(log string) (kills []Kill) {
	for line := range strings.Lines(log) {
		if k, ok := parseLine(strings.TrimSpace(line)); ok {
			kills = append(kills, k)
		}
	}
	return kills
}

// parseLine reads "oom-kill:constraint=…,task_memcg=GROUP,task=NAME,pid=N,uid=N".
func parseLine(line string) (k Kill, ok bool) {
	_, rest, ok := strings.Cut(line, "oom-kill:constraint=")
	if !ok {
		return k, false
	}
	_, rest, ok = strings.Cut(rest, ",task_memcg=")
	if !ok {
		return k, false
	}
	group, task, _ := strings.Cut(rest, ",task=")
	name, pid, _ := strings.Cut(task, ",pid=")
	pid, _, _ = strings.Cut(pid, ",")
	at, guest := stamp.FindStringSubmatch(line), domain.FindStringSubmatch(group)
	if at == nil || guest == nil || name == "swtpm" {
		return k, false
	}
	k.Guest = guest[1]
	seconds, _ := strconv.ParseInt(at[1], 10, 64)
	micros, _ := strconv.ParseInt(at[2], 10, 64)
	k.At = time.Duration(seconds)*time.Second + time.Duration(micros)*time.Microsecond
	k.PID, _ = strconv.Atoi(pid) // only said to people
	return k, true
}
