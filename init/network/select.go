package network

import (
	"slices"
	"strings"
	"time"
)

// Times of the choice. Copper takes up to 3 s to find its link; a switch that
// reboots is away for longer than moveAfter, but then no other NIC helps.
const (
	linkGrace = 3 * time.Second
	moveAfter = 30 * time.Second
)

// Choice is the input of Select.
type Choice struct {
	// Want is the document's name or MAC, or empty for the first with link.
	Want    string
	Links   []Link
	Current string // the interface in use, or empty
	// Since says when each link, by name, got its present carrier state.
	Since map[string]time.Time
	Now   time.Time
}

// Select returns the management interface, or "" while there is none, and the
// time at which the answer may change by itself (zero: never).
//
// Without a name the first NIC by bus path with a link is taken. One of a lower
// path is given a short time to find its link, so that the choice does not
// depend on which driver was faster. The choice then stays, and moves only when
// its link has been gone for long and another NIC has one.
func Select(c Choice) (string, time.Time) {
	if c.Want != "" {
		for _, l := range c.Links {
			if l.Kind != bridgeKind && l.matches(c.Want) {
				return l.Name, time.Time{}
			}
		}
		return "", time.Time{}
	}
	nics := slices.DeleteFunc(slices.Clone(c.Links), func(l Link) bool { return !l.Physical() })
	slices.SortFunc(nics, func(a, b Link) int { return strings.Compare(a.Path, b.Path) })
	return c.automatic(nics)
}

func (c Choice) automatic(nics []Link) (string, time.Time) {
	first := slices.IndexFunc(nics, func(l Link) bool { return l.Carrier })
	current := slices.IndexFunc(nics, func(l Link) bool { return l.Name == c.Current })
	switch {
	case current >= 0 && (nics[current].Carrier || first < 0):
		return c.Current, time.Time{}
	case first < 0:
		return "", time.Time{}
	case current >= 0:
		if until := c.Since[c.Current].Add(moveAfter); c.Now.Before(until) {
			return c.Current, until
		}
		return nics[first].Name, time.Time{}
	}
	var until time.Time
	for _, l := range nics[:first] {
		if t := c.Since[l.Name].Add(linkGrace); c.Now.Before(t) && t.After(until) {
			until = t
		}
	}
	if !until.IsZero() {
		return "", until
	}
	return nics[first].Name, time.Time{}
}
