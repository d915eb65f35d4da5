package xe

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"cairn/toolstack/client"
)

// explicit finds what an explicit command does and checks what it needs.
func (s *session) explicit(cmd *Command) (func(context.Context) error, error) {
	for _, name := range cmd.Required {
		if base, isMap := strings.CutSuffix(name, ":"); isMap && len(s.Params.Map(base)) > 0 {
			continue
		}
		if _, ok := s.Params.Get(name); !ok {
			return nil, missingParam(name)
		}
	}
	if err := s.once(cmd.repeats); err != nil {
		return nil, err
	}
	p, err := parsePlan(cmd.plan)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmd.Name, err)
	}
	if p.code {
		if !takesFields[cmd.Name] {
			s.warnUnused(cmd)
		}
		code := inGo[cmd.Name]
		return func(ctx context.Context) error { return code(s, ctx) }, nil
	}
	main, err := s.choose(p)
	if err != nil {
		return nil, err
	}
	if main.method == "LATER" {
		return nil, &client.Error{Code: "NOT_IMPLEMENTED", Params: main.args}
	}
	if main.force && !s.Params.True("force") {
		return nil, usage("%s can lose data: give --force if you mean it", cmd.Name)
	}
	s.warnUnused(cmd)
	return func(ctx context.Context) error { return s.runPlan(ctx, cmd, main, p.after) }, nil
}

// takesFields are the commands without selectors that take any field of a class.
var takesFields = map[string]bool{"cd-list": true, "event-wait": true}

// warnUnused names parameters a command without selectors does not know, which
// are most likely misspelt. They are no error: old scripts have some.
func (s *session) warnUnused(cmd *Command) {
	if cmd.selects() == "" {
		s.warnOther(cmd.declares)
	}
}

func (s *session) warnOther(known func(string) bool) {
	for _, p := range s.Params.Without(standard...) {
		if !known(p.Name) {
			fmt.Fprintf(s.errOut, "xe: %s does not use %s=\n", s.Command, p.full())
		}
	}
}

// runPlan runs the steps, once for each selected object if they are about one.
// All objects are tried; the failures are reported together.
func (s *session) runPlan(ctx context.Context, cmd *Command, main step, after []step) error {
	if main.confirm != "" && !s.Params.True("force") {
		what, _ := s.Params.Get(main.confirm)
		if !s.confirm(cmd.Name + " " + main.confirm + "=" + what) {
			return errNotConfirmed
		}
	}
	if !main.usesSelf() {
		return s.runSteps(ctx, scope{}, main, after)
	}
	list, err := s.selected(ctx, cmd.selects(), cmd.own()...)
	if err != nil {
		return err
	}
	return s.each(list, func(r record) error { return s.runSteps(ctx, scope{self: r.ref}, main, after) })
}

// own are the parameters of the command's own, which do not select objects.
func (c *Command) own() []string {
	var own []string
	for _, p := range c.params() {
		own = append(own, strings.TrimSuffix(p, ":"))
	}
	return own
}

func (st step) usesSelf() bool {
	for _, a := range st.args {
		if a == "self" || strings.HasSuffix(a, "=self") {
			return true
		}
	}
	return false
}

// each runs fn on every object, and reports the failures after the last.
func (s *session) each(list []record, fn func(record) error) error {
	var failed failures
	for _, r := range list {
		if err := fn(r); err != nil {
			failed = append(failed, failure{r.uuid(), err})
		}
	}
	switch {
	case len(failed) == 0:
		return nil
	case len(list) == 1:
		return failed[0].err
	}
	return failed
}

// scope is what arguments may refer to besides parameters.
type scope struct {
	self string // the selected object
	id   string // what the main message answered
}

func (s *session) runSteps(ctx context.Context, sc scope, main step, after []step) error {
	answer, err := s.runStep(ctx, sc, main)
	if err != nil {
		return err
	}
	_ = json.Unmarshal(answer, &sc.id) // stays empty when the answer is no text
	for _, st := range after {
		if err := s.runAfter(ctx, sc, st); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) runAfter(ctx context.Context, sc scope, st step) error {
	if !strings.HasPrefix(st.guard, "*") {
		if !s.holds(st.guard) {
			return nil
		}
		_, err := s.runStep(ctx, sc, st)
		return err
	}
	list, _ := s.Params.Get(st.guard[1:])
	given := s.Params
	defer func() { s.Params = given }()
	for _, w := range words(list) {
		s.Params = append(given[:len(given):len(given)], Param{Name: "each", Value: w})
		if _, err := s.runStep(ctx, sc, st); err != nil {
			return err
		}
	}
	return nil
}

// runStep sends one message, or does one transfer, and shows the answer.
func (s *session) runStep(ctx context.Context, sc scope, st step) (json.RawMessage, error) {
	verb, path, isTransfer := strings.Cut(st.method, ":")
	list := st.args
	if isTransfer && strings.HasPrefix(list[len(list)-1], "file:") {
		list = list[:len(list)-1] // sent as it is read
	}
	args, err := s.arguments(ctx, sc, list)
	if err != nil {
		return nil, err
	}
	switch {
	case isTransfer:
		return nil, s.transfer(ctx, verb, path, st, args)
	case st.watched:
		answer, err := s.watch(ctx, st.method, args)
		if err != nil {
			return nil, err
		}
		return answer, s.answer(ctx, st.answer, answer)
	}
	var answer json.RawMessage
	if err := s.api.Call(ctx, st.method, &answer, args...); err != nil {
		return nil, err
	}
	return answer, s.answer(ctx, st.answer, answer)
}
