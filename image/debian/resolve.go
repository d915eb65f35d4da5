package debian

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// maxRounds bounds the repair of broken version constraints. One round is
// enough when a whole source package moved at once, which is how Debian does it.
const maxRounds = 20

// A resolver chooses one version of each package: the locked one while it can
// be had, else the newest, and closes the set over its dependencies.
type resolver struct {
	index  *index
	list   List
	chosen map[string]*candidate
	queue  []*candidate // chosen, dependencies not yet looked at
}

// resolve returns the packages for list. Locked packages win; kept looks up a
// locked package that the archive has dropped but the cache still holds.
func resolve(x *index, list List, lock []Package, kept func(Package) *candidate) ([]*candidate, []Drift, error) {
	r := &resolver{index: x, list: list, chosen: map[string]*candidate{}}
	for _, p := range lock {
		c := x.exact(p)
		if c == nil {
			if c = kept(p); c != nil {
				x.add(c) // others may need what it provides
			}
		}
		if c == nil {
			c = x.newest(relation{name: p.Name})
		}
		if c != nil {
			r.choose(c)
		}
	}
	for _, name := range list.Want {
		if err := r.want(name); err != nil {
			return nil, nil, err
		}
	}
	if err := r.close(); err != nil {
		return nil, nil, err
	}
	pkgs := r.reachable()
	return pkgs, drift(lock, pkgs), nil
}

func (r *resolver) want(name string) error {
	if r.chosen[name] != nil {
		return nil
	}
	c := r.index.newest(relation{name: name})
	if c == nil {
		return fmt.Errorf("package %s: the archive has none of that name", name)
	}
	r.choose(c)
	return nil
}

func (r *resolver) choose(c *candidate) {
	r.chosen[c.Name] = c
	r.queue = append(r.queue, c)
}

// close satisfies the dependencies of everything chosen, again whenever a
// package had to move to a newer version that others may not agree with.
func (r *resolver) close() error {
	for range maxRounds {
		for len(r.queue) > 0 {
			c := r.queue[0]
			r.queue = r.queue[1:]
			if err := r.satisfy(c); err != nil {
				return err
			}
		}
		for _, c := range r.sorted() {
			if !r.content(c) {
				r.queue = append(r.queue, c)
			}
		}
		if len(r.queue) == 0 {
			return nil
		}
	}
	return fmt.Errorf("package %s: dependencies stay broken", r.queue[0].Name)
}

// satisfy chooses a package for each unmet dependency of c. Where the chosen
// version of a package is in the way it moves to the newest; where even that
// does not help, c itself does.
func (r *resolver) satisfy(c *candidate) error {
	if r.chosen[c.Name] != c {
		return nil // replaced since it was queued
	}
	for _, group := range c.depends {
		if r.met(group) {
			continue
		}
		if found := r.pick(group); found != nil {
			r.choose(found)
			continue
		}
		newer := r.index.newest(relation{name: c.Name})
		if newer == nil || compareVersions(newer.Version, c.Version) <= 0 {
			return fmt.Errorf("package %s %s: nothing satisfies %s", c.Name, c.Version, groupString(group))
		}
		r.choose(newer)
		return nil
	}
	return nil
}

// pick takes the first alternative that exists, then the first provider.
func (r *resolver) pick(group []relation) *candidate {
	for _, rel := range group {
		if c := r.index.newest(rel); c != nil {
			return c
		}
	}
	for _, rel := range group {
		if c := r.index.provider(rel); c != nil {
			return c
		}
	}
	return nil
}

// met reports whether a group is satisfied, or names a package the list omits.
func (r *resolver) met(group []relation) bool {
	return slices.ContainsFunc(group, func(rel relation) bool {
		return r.list.Omit[rel.name] || r.satisfier(rel) != nil
	})
}

func (r *resolver) satisfier(rel relation) *candidate {
	if c := r.chosen[rel.name]; c != nil && c.satisfies(rel) {
		return c
	}
	for _, p := range r.index.providers[rel.name] {
		if c := r.chosen[p.Name]; c == p && c.satisfies(rel) {
			return c
		}
	}
	return nil
}

func (r *resolver) content(c *candidate) bool {
	return !slices.ContainsFunc(c.depends, func(g []relation) bool { return !r.met(g) })
}

func (r *resolver) sorted() []*candidate {
	return slices.SortedFunc(maps.Values(r.chosen), func(a, b *candidate) int { return byName(a.Package, b.Package) })
}

// reachable drops what nothing on the list needs any more, such as the kernel
// of an older ABI, or what it now omits.
func (r *resolver) reachable() []*candidate {
	seen := map[string]*candidate{}
	var visit func(c *candidate)
	visit = func(c *candidate) {
		if c == nil || seen[c.Name] != nil || r.list.Omit[c.Name] {
			return
		}
		seen[c.Name] = c
		for _, group := range c.depends {
			for _, rel := range group {
				visit(r.satisfier(rel))
			}
		}
	}
	for _, name := range r.list.Want {
		visit(r.chosen[name])
	}
	r.chosen = seen
	return r.sorted()
}

func groupString(group []relation) string {
	var alts []string
	for _, rel := range group {
		s := rel.name
		if rel.op != "" {
			s += " (" + rel.op + " " + rel.version + ")"
		}
		alts = append(alts, s)
	}
	return strings.Join(alts, " | ")
}

// drift lists how the chosen packages differ from the lock, by name. A locked
// package that is no longer needed is drift only beside other drift: then it
// went because of it. Alone it means the list changed.
func drift(lock []Package, got []*candidate) []Drift {
	have := map[string]*candidate{}
	for _, c := range got {
		have[c.Name] = c
	}
	var out, gone []Drift
	locked := map[string]bool{}
	for _, p := range lock {
		locked[p.Name] = true
		switch c := have[p.Name]; {
		case c == nil:
			gone = append(gone, Drift{Name: p.Name, Locked: p.Version})
		case c.SHA256 != p.SHA256:
			out = append(out, Drift{Name: p.Name, Locked: p.Version, Got: c.Version})
		}
	}
	for _, c := range got {
		if !locked[c.Name] {
			out = append(out, Drift{Name: c.Name, Got: c.Version})
		}
	}
	if len(out) > 0 {
		out = append(out, gone...)
	}
	slices.SortFunc(out, func(a, b Drift) int { return strings.Compare(a.Name, b.Name) })
	return out
}
