//go:build lab

package main

import (
	"slices"
	"strings"
	"sync"
	"time"

	"cairn/ci/interpose"
)

// steps hears every question of toolstackd's, writes them down and kills at one.
type steps struct {
	mu        sync.Mutex
	recording bool
	list      []timed
	since     map[interpose.Step]time.Time
	armed     *blow
}

// blow is a kill that waits for its moment.
type blow struct {
	kill
	do   func() // kills; it returns when the daemon is dead
	seen int    // how often its step was come to

	mu          sync.Mutex
	made, ended bool
}

func (b *blow) fire() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.made && !b.ended {
		b.do()
		b.made = true
	}
}

// end calls a kill off that was not made, and reports whether it was.
func (b *blow) end() (made bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ended = true
	return b.made
}

// changes tells the steps that change something from those that only look.
func changes(s interpose.Step) bool {
	return s.Peer == "hostd" && !strings.HasPrefix(s.Name, "GET ") || s.Peer == "libvirtd" && !strings.HasPrefix(s.Name, "procedure ")
}

// gate implements interpose.Gate.
func (s *steps) gate(step interpose.Step, m interpose.Moment) bool {
	s.mu.Lock()
	s.write(step, m)
	b := s.due(step, m)
	s.mu.Unlock()
	if b == nil {
		return true
	}
	if m == interpose.Handed {
		time.AfterFunc(b.delay, b.fire)
		return true
	}
	b.fire()
	return b.daemon != toolstackName // the dead ask nothing and hear nothing
}

func (s *steps) write(step interpose.Step, m interpose.Moment) {
	if !s.recording || !changes(step) {
		return
	}
	event := strings.HasPrefix(step.Name, "event ")
	switch {
	case event:
		s.list = append(s.list, timed{Step: step, event: true})
	case m == interpose.Asked:
		s.list = append(s.list, timed{Step: step})
		s.since[step] = time.Now()
	case m == interpose.Answered:
		for i := range slices.Backward(s.list) {
			if s.list[i].Step == step {
				s.list[i].took = time.Since(s.since[step])
				break
			}
		}
	}
}

// due is the kill whose moment this is.
func (s *steps) due(step interpose.Step, m interpose.Moment) *blow {
	b := s.armed
	if b == nil || b.step != step || b.moment != m {
		return nil
	}
	if b.seen++; b.seen != b.nth {
		return nil
	}
	return b
}

func (s *steps) record() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recording, s.list, s.since = true, nil, map[interpose.Step]time.Time{}
}

func (s *steps) recorded() []timed {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.recording = false
	return s.list
}

func (s *steps) arm(b *blow) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.armed = b
}
