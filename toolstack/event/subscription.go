package event

import (
	"fmt"
	"strconv"
	"strings"

	"cairn/toolstack/api"
)

// Token is a place in the stream of changes: what was told up to it. Objects of
// class message have a counter of their own, so that a client which never asked
// for them is told of all of them when it does.
type Token struct{ Generation, Messages uint64 }

// String writes the token as clients keep it.
func (t Token) String() string { return fmt.Sprintf("%020d,%020d", t.Generation, t.Messages) }

// ParseToken reads a token; an empty one is the beginning.
func ParseToken(s string) (Token, error) {
	if s == "" {
		return Token{}, nil
	}
	a, b, ok := strings.Cut(s, ",")
	generation, err1 := strconv.ParseUint(a, 10, 64)
	messages, err2 := strconv.ParseUint(b, 10, 64)
	if !ok || err1 != nil || err2 != nil {
		return Token{}, api.ErrEventFromTokenParseFailure(s)
	}
	return Token{generation, messages}, nil
}

// subscription says which objects a client wants to hear of. It is not changed
// once made.
type subscription struct {
	all     bool
	classes map[string]bool            // by lower-case name
	objects map[string]map[string]bool // references by lower-case name of class
}

// everyClass is the entry that wants all of them.
const everyClass = "*"

// parseSubscription reads entries "*", "class" and "class/reference", in which
// the class may be written in any case.
func parseSubscription(entries []string) (*subscription, error) {
	s := &subscription{classes: map[string]bool{}, objects: map[string]map[string]bool{}}
	for _, e := range entries {
		class, ref, single := strings.Cut(e, "/")
		class = strings.ToLower(class)
		switch {
		case class == "" || strings.Contains(ref, "/") || single && ref == "":
			return nil, api.ErrEventSubscriptionParseFailure(e)
		case single:
			if s.objects[class] == nil {
				s.objects[class] = map[string]bool{}
			}
			s.objects[class][ref] = true
		case class == everyClass:
			s.all = true
		default:
			s.classes[class] = true
		}
	}
	return s, nil
}

// class reports whether anything of a class is wanted.
func (s *subscription) class(c *api.ClassInfo) bool {
	return c.Events && (s.all || s.classes[c.Lower] || s.objects[c.Lower] != nil)
}

// object reports whether an object is wanted.
func (s *subscription) object(c *api.ClassInfo, ref string) bool {
	return c.Events && (s.all || s.classes[c.Lower] || s.objects[c.Lower][ref])
}

// tasksOnly reports whether tasks are all that is wanted: a client that follows
// a task wants to know soon.
func (s *subscription) tasksOnly() bool {
	if s.all || len(s.classes)+len(s.objects) == 0 {
		return false
	}
	for class := range s.classes {
		if class != taskClass.Lower {
			return false
		}
	}
	for class := range s.objects {
		if class != taskClass.Lower {
			return false
		}
	}
	return true
}

var (
	taskClass    = api.ClassOf[api.Task]()
	messageClass = api.ClassOf[api.Message]()
	sessionClass = api.ClassOf[api.Session]()
)
