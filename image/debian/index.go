package debian

import (
	"io"
	"maps"
	"slices"
	"strings"
)

// A candidate is one package version the archive offers, with what the choice
// between versions needs.
type candidate struct {
	Package
	Size     string
	provides []relation
	depends  [][]relation // each group is satisfied by any of its alternatives
}

// A relation is one package name of a dependency with an optional constraint.
type relation struct {
	name, op, version string
}

// index is everything the signed archive offers, by name and by what is
// provided.
type index struct {
	byName    map[string][]*candidate
	providers map[string][]*candidate
}

func newIndex() *index {
	return &index{byName: map[string][]*candidate{}, providers: map[string][]*candidate{}}
}

// indexFields are the fields of a Packages paragraph that matter here.
var indexFields = func() map[string]bool {
	m := map[string]bool{}
	for f := range strings.FieldsSeq("package version architecture sha256 source section size provides depends pre-depends") {
		m[f] = true
	}
	return m
}()

// read adds the packages of one Packages file.
func (x *index) read(r io.Reader) error {
	return eachParagraph(r, indexFields, func(p paragraph) error {
		x.add(newCandidate(p))
		return nil
	})
}

func newCandidate(p paragraph) *candidate {
	c := &candidate{
		Package: Package{
			Name: p["package"], Version: p["version"], Arch: p["architecture"],
			SHA256: p["sha256"], Source: p["source"], Section: p["section"],
		},
		Size: p["size"],
	}
	if c.Source == "" {
		c.Source = c.Name
	}
	c.Source, _, _ = strings.Cut(c.Source, " ")
	for _, group := range parseRelations(p["provides"]) {
		c.provides = append(c.provides, group...)
	}
	c.depends = append(parseRelations(p["pre-depends"]), parseRelations(p["depends"])...)
	return c
}

func (x *index) add(c *candidate) {
	x.byName[c.Name] = append(x.byName[c.Name], c)
	for _, p := range c.provides {
		x.providers[p.name] = append(x.providers[p.name], c)
	}
}

// exact finds the very bytes a lock line names.
func (x *index) exact(p Package) *candidate {
	for _, c := range x.byName[p.Name] {
		if c.SHA256 == p.SHA256 && c.Version == p.Version {
			return c
		}
	}
	return nil
}

// newest returns the highest version of a package that satisfies rel, or nil.
func (x *index) newest(rel relation) *candidate {
	var best *candidate
	for _, c := range x.byName[rel.name] {
		if rel.allows(c.Version) && (best == nil || compareVersions(c.Version, best.Version) > 0) {
			best = c
		}
	}
	return best
}

// provider returns the newest version of the first package, by name, that
// provides rel.
func (x *index) provider(rel relation) *candidate {
	names := map[string]bool{}
	for _, c := range x.providers[rel.name] {
		names[c.Name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(names)) {
		if c := x.newest(relation{name: name}); c != nil && c.satisfies(rel) {
			return c
		}
	}
	return nil
}

// parseRelations reads a Depends-like field: comma-separated groups of
// alternatives separated by "|".
func parseRelations(field string) [][]relation {
	var groups [][]relation
	for part := range strings.SplitSeq(field, ",") {
		var group []relation
		for alt := range strings.SplitSeq(part, "|") {
			if rel := parseRelation(alt); rel.name != "" {
				group = append(group, rel)
			}
		}
		if len(group) > 0 {
			groups = append(groups, group)
		}
	}
	return groups
}

// parseRelation reads "name[:arch] [(op version)]".
func parseRelation(s string) relation {
	name, constraint, _ := strings.Cut(s, "(")
	name, _, _ = strings.Cut(strings.TrimSpace(name), ":")
	constraint = strings.TrimSuffix(strings.TrimSpace(constraint), ")")
	i := 0
	for i < len(constraint) && strings.IndexByte("<>=", constraint[i]) >= 0 {
		i++
	}
	return relation{name: strings.TrimSpace(name), op: constraint[:i], version: strings.TrimSpace(constraint[i:])}
}

// allows reports whether a version meets the constraint.
func (r relation) allows(version string) bool {
	c := compareVersions(version, r.version)
	switch r.op {
	case "":
		return true
	case "=":
		return c == 0
	case ">=", ">":
		return c >= 0
	case "<=", "<":
		return c <= 0
	case ">>":
		return c > 0
	case "<<":
		return c < 0
	}
	return false
}

// satisfies reports whether the package itself, or something it provides,
// meets rel. An unversioned Provides meets no versioned dependency.
func (c *candidate) satisfies(rel relation) bool {
	if c.Name == rel.name && rel.allows(c.Version) {
		return true
	}
	for _, p := range c.provides {
		if p.name == rel.name && (rel.op == "" || p.op == "=" && rel.allows(p.version)) {
			return true
		}
	}
	return false
}
