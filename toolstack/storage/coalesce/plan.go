// Package coalesce merges layers of disks that nobody needs apart.
//
// Plan is a pure function from the layers there are to the next steps. A step goes
// through a Store: it is recorded, then data is merged, then what points to the
// layer is pointed elsewhere, then one transaction makes it so, and only then is
// the layer removed that has become garbage. A Worker does this whenever it is told
// of a change, one step after another.
//
// Invariants:
//   - A layer that others are based on never reads differently, not for a moment:
//     data is written only into a hidden layer, only by the one layer above it,
//     and what it writes is what readers of that layer see already.
//   - Merging is idempotent and may stop anywhere; pointing elsewhere happens only
//     after all data is merged.
//   - A step that was recorded is the only one planned for the layers it is about,
//     so after a crash it is finished before anything else happens to them.
//   - Layers in use by a domain or by an operation are left alone, except that the
//     top layer of one running domain is merged by that domain's hypervisor.
//   - A hidden layer is removed when nothing is based on it, and not before.
//
// Plan and Run keep no state; a Worker's methods may be called by many goroutines.
package coalesce

import (
	"cmp"
	"slices"
)

// Kind is how layers are merged.
type Kind string

// Kinds of steps.
const (
	// Inner merges a layer that others are based on, hidden or a snapshot's, into the
	// hidden one below it.
	Inner Kind = "inner"
	// Leaf merges a disk's top layer, not in use, into the hidden one below it, of
	// which the disk then consists.
	Leaf Kind = "leaf"
	// Live is Leaf under a running domain.
	Live Kind = "live"
	// Drop removes a hidden layer on which nothing is based.
	Drop Kind = "drop"
)

// Layer is one layer of some disk.
type Layer struct {
	ID     string
	Parent string // the layer beneath; empty for none
	Hidden bool   // it is no disk or snapshot by itself
	// Attached: a domain has it open, and all beneath it. Running: it is one domain,
	// which writes to it and could merge it.
	Attached, Running bool
	// Tracked: that this layer holds what changed since the one below is on record
	// nowhere else, so it is not merged into that.
	Tracked bool
	Busy    bool  // an operation has it, or is going to change what it is
	Step    Kind  // recorded for it
	Size    int64 // what a merge would move
}

// Step merges Layer into Into. Above are the layers based on Layer that will be
// based on Into.
type Step struct {
	Kind        Kind
	Layer, Into string
	Above       []string
	Recorded    bool // begun before
}

// forest is the layers by what is above what.
type forest struct {
	all   map[string]Layer
	above map[string][]string
}

// Plan lists what can be done now, the best first: what was begun, then what
// removes, then the cheapest. Steps of one plan may exclude each other, so plan
// anew after each.
func Plan(layers []Layer) []Step {
	f := forest{all: map[string]Layer{}, above: map[string][]string{}}
	for _, l := range layers {
		f.all[l.ID] = l
		if l.Parent != "" {
			f.above[l.Parent] = append(f.above[l.Parent], l.ID)
		}
	}
	var steps []Step
	for _, l := range layers {
		if s, ok := f.step(l); ok {
			steps = append(steps, s)
		}
	}
	slices.SortFunc(steps, func(a, b Step) int {
		return cmp.Or(rank(a)-rank(b), cmp.Compare(f.all[a.Layer].Size, f.all[b.Layer].Size), cmp.Compare(a.Layer, b.Layer))
	})
	return steps
}

func rank(s Step) int {
	switch {
	case s.Recorded:
		return 0
	case s.Kind == Drop:
		return 1
	default:
		return 2
	}
}

// step is what can be done with one layer.
func (f forest) step(l Layer) (Step, bool) {
	below, based := f.all[l.Parent]
	s := Step{Layer: l.ID, Above: slices.Sorted(slices.Values(f.above[l.ID])), Recorded: l.Step != ""}
	switch {
	case l.Busy || l.Attached && l.Hidden:
		return s, false
	case l.Hidden && len(s.Above) == 0:
		s.Kind = Drop
		return s, !f.reserved(l, true)
	case !based || !below.Hidden || below.Busy || len(f.above[l.Parent]) != 1:
		return s, false // what is below is somebody's, or others read it
	case !s.Recorded && f.reserved(l, false):
		return s, false
	}
	s.Into = below.ID
	return f.merge(l, s)
}

func (f forest) merge(l Layer, s Step) (Step, bool) {
	switch {
	case len(s.Above) > 0:
		s.Kind = Inner
		return s, !l.Attached && f.quiet(l.ID)
	case l.Attached:
		s.Kind = Live
		return s, l.Running && !l.Tracked
	default:
		s.Kind = Leaf
		return s, !l.Tracked
	}
}

// reserved reports whether a layer next to this one has a recorded step.
func (f forest) reserved(l Layer, own bool) bool {
	if f.all[l.Parent].Step != "" || !own && l.Step != "" {
		return true
	}
	return slices.ContainsFunc(f.above[l.ID], func(id string) bool { return f.all[id].Step != "" })
}

// quiet reports whether nobody has what is above a layer open.
func (f forest) quiet(id string) bool {
	for _, up := range f.above[id] {
		if l := f.all[up]; l.Attached || l.Busy || !f.quiet(up) {
			return false
		}
	}
	return true
}
