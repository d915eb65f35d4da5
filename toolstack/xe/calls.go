package xe

import (
	"fmt"
	"strings"
)

// The notation of data/calls.txt, one command a line:
//
//	<command> [<guard>] [FORCE|CONFIRM:<param>] <message> <argument>… [-> <answer>]
//
// A command with several lines (indented) runs the first whose guard holds;
// lines that begin with + run after it, each if its own guard holds. A guard
// is ?name, the parameter is given (and is not false), or *name, once for each
// element of the comma-separated parameter, which the line knows as "each". In
// place of a message: "code" for a command in Go, "LATER name" for one that
// this program cannot do yet, GET:/path and PUT:/path for transfers. ~ before
// a message runs it as a task that is watched and can be cancelled. FORCE
// wants --force; CONFIRM asks first.
//
// Arguments, where p is a parameter's name or several ("a|b": the first
// given), which must be there unless "=default" follows:
//
//	self                the selected object, one call for each
//	str:p int:p float:p bool:p bytes:p  text, numbers (bytes with units), truth
//	mac:p               an address; "random" and "auto" leave it to the host
//	enum:A|B:p          one of these words, in any case
//	set:p               comma-separated elements; none if not given
//	map:p               from p:key=value parameters
//	maps:p              from "k:v,k:v"
//	keys:p              the keys of p:key=value parameters
//	pairs:C:a:b         map from references, a=uuid, to values, b=value
//	ref:C:p             reference by uuid;  ref?: null if not given
//	refs:C:p            references by uuids
//	pick:C:p            reference by name or uuid
//	pool  pool:p        the pool, or the one with that uuid
//	here  host:p        this host, or the one with that uuid
//	resident:p          the VMs that run on these hosts
//	session             the session, or that of database:vdi-uuid=
//	file:p base64:p     what a local file holds
//	base:p              a local file's name without folders
//	absent:p            true if the parameter is not given
//	id                  what the main message answered
//	=text #json {} []   constants
//	{ a=arg b?=arg }    a record or map; a "?" leaves out what is not given
//
// Answers: text, lines, map, lists, records, uuid:C and uuids:C (references of
// class C), refmap:C (map from references), key:k (one entry of a map), file:p
// (what a transfer brings goes there), taskrefs:C (references a transfer's task
// answered).

// plan is what a command does.
type plan struct {
	code         bool
	alternatives []step
	after        []step
}

// step is one line of a plan.
type step struct {
	guard   string // "?name" or "*name"
	force   bool
	confirm string // parameter that says what is at stake
	watched bool
	method  string
	args    []string
	answer  string
}

// splitPlans finds the lines of each command.
func splitPlans(text string) map[string]string {
	plans := map[string]string{}
	name := ""
	for line := range strings.Lines(text) {
		body := strings.TrimSpace(line)
		switch {
		case body == "" || body[0] == '#':
			continue
		case line[0] != ' ':
			name, body, _ = strings.Cut(body, " ")
		}
		if body = strings.TrimSpace(body); body != "" {
			plans[name] += body + "\n"
		}
	}
	return plans
}

// parsePlan reads the lines of one command.
func parsePlan(text string) (plan, error) {
	var p plan
	if strings.TrimSpace(text) == "code" {
		return plan{code: true}, nil
	}
	for line := range strings.Lines(text) {
		line, after := strings.CutPrefix(strings.TrimSpace(line), "+ ")
		st, err := parseStep(strings.Fields(line))
		if err != nil {
			return p, fmt.Errorf("%q: %w", line, err)
		}
		if after {
			p.after = append(p.after, st)
		} else {
			p.alternatives = append(p.alternatives, st)
		}
	}
	if len(p.alternatives) == 0 {
		return p, fmt.Errorf("nothing to call")
	}
	return p, nil
}

func parseStep(words []string) (step, error) {
	var st step
	for len(words) > 0 && st.method == "" {
		w := words[0]
		words = words[1:]
		switch {
		case w[0] == '?' || w[0] == '*':
			st.guard = w
		case w == "FORCE":
			st.force = true
		case strings.HasPrefix(w, "CONFIRM:"):
			st.confirm = w[len("CONFIRM:"):]
		default:
			st.method, st.watched = strings.CutPrefix(w, "~")
		}
	}
	if st.method == "" {
		return st, fmt.Errorf("no message")
	}
	for i, w := range words {
		if w != "->" {
			st.args = append(st.args, w)
			continue
		}
		if len(words) != i+2 {
			return st, fmt.Errorf("want one answer after ->")
		}
		st.answer = words[i+1]
		break
	}
	return st, nil
}

// holds reports whether a guard lets a step run.
func (s *session) holds(guard string) bool {
	if guard == "" {
		return true
	}
	v, given := s.Params.Get(guard[1:])
	on, isTruth := truth(v)
	return given && (!isTruth || on)
}

// choose is the first alternative whose guard holds.
func (s *session) choose(p plan) (step, error) {
	var guards []string
	for _, st := range p.alternatives {
		if s.holds(st.guard) {
			return st, nil
		}
		guards = append(guards, st.guard[1:]+"=")
	}
	return step{}, usage("%s needs one of: %s", s.Command, strings.Join(guards, ", "))
}
