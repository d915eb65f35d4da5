package xe

import (
	"slices"
	"strings"
)

// once refuses a parameter that is given twice where one of the two would be dropped
// unsaid; may tells those that add up.
func (s *session) once(may func(Param) bool) error {
	seen := map[string]bool{}
	for _, p := range s.Params.Without(standard...) {
		if may(p) {
			continue
		}
		if seen[p.full()] {
			return usage("%s= is given twice", p.full())
		}
		seen[p.full()] = true
	}
	return nil
}

// repeats tells the parameters of an explicit command that may be given more than once:
// those that its plan takes in pairs, and the conditions that select objects, all of
// which have to hold. The object's own name is not one of them.
func (c *Command) repeats(p Param) bool {
	for w := range strings.FieldsSeq(c.plan) {
		if names, ok := strings.CutPrefix(w, "pairs:"); ok && slices.Contains(strings.Split(names, ":")[1:], p.Name) {
			return true
		}
	}
	return !c.declares(p.Name) && p.Name != "uuid" && p.Name != c.selects()
}
