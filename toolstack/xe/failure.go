package xe

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"strings"

	"cairn/toolstack/client"
	"cairn/toolstack/datamodel/text"
)

//go:embed data/errors.txt
var errorParams string

// errNotConfirmed ends a command the user did not confirm.
var errNotConfirmed = errors.New("not confirmed, nothing was changed")

func asError[T error](err error, target *T) bool { return errors.As(err, target) }

// failure is what went wrong with one of several objects.
type failure struct {
	uuid string
	err  error
}

type failures []failure

// Error implements error.
func (f failures) Error() string { return fmt.Sprintf("failed on %d objects", len(f)) }

// report says on stderr why a run failed.
func (s *session) report(ctx context.Context, err error) {
	ctx = context.WithoutCancel(ctx)
	var several failures
	if errors.As(err, &several) {
		for _, f := range several {
			fmt.Fprintf(s.errOut, "%s: ", f.uuid)
			s.reportOne(ctx, f.err)
		}
		return
	}
	s.reportOne(ctx, err)
}

func (s *session) reportOne(ctx context.Context, err error) {
	var bad *UsageError
	var refused *client.Error
	switch {
	case errors.As(err, &refused):
		fmt.Fprint(s.errOut, s.refusal(ctx, refused))
	case errors.As(err, &bad):
		fmt.Fprintf(s.errOut, "xe: %s\n", bad.Reason)
		if s.Command != "" && s.cat.knows(s.Command) {
			fmt.Fprintf(s.errOut, "For help: xe help %s\n", s.Command)
		} else {
			fmt.Fprintln(s.errOut, "For help: xe help")
		}
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(s.errOut, "xe: interrupted")
	default:
		fmt.Fprintf(s.errOut, "xe: %v\n", err)
	}
}

func (c *Catalogue) knows(command string) bool {
	return c.explicit[command] != nil || c.generic[command] != nil
}

// refusal words an answer of the host: one sentence for people, then the code
// and its parameters for scripts. References are told by uuid and name.
func (s *session) refusal(ctx context.Context, e *client.Error) string {
	names := paramNames(e.Code)
	params := make([]string, len(e.Params))
	for i, p := range e.Params {
		name := ""
		if i < len(names) {
			name = names[i]
		}
		params[i] = s.nameRef(ctx, p, name, e.Params)
	}
	var b strings.Builder
	if sentences, err := text.Errors(); err == nil && sentences[e.Code] != "" {
		fmt.Fprintln(&b, text.Sentence(sentences[e.Code], names, params))
	}
	fmt.Fprintf(&b, "Error code: %s\n", e.Code)
	if len(params) > 0 {
		fmt.Fprintf(&b, "Error parameters: %s\n", strings.Join(params, ", "))
	}
	return b.String()
}

// paramNames are the names of an error's parameters, in order.
func paramNames(code string) []string {
	for line := range strings.Lines(errorParams) {
		word := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		if word[0] == code {
			return word[1:]
		}
	}
	return nil
}

// nameRef writes a reference, or a list of them, as "uuid (name)" when it can be
// told what it leads to: from records already read, from what the user named, from
// the name of the parameter, or from a class named by another parameter.
func (s *session) nameRef(ctx context.Context, ref, name string, all []string) string {
	if !strings.HasPrefix(ref, "OpaqueRef:") || ref == nullRef || s.api == nil {
		return ref
	}
	if list := strings.Split(ref, "; "); len(list) > 1 {
		for i, one := range list {
			list[i] = s.nameRef(ctx, one, name, all)
		}
		return strings.Join(list, "; ")
	}
	for _, of := range s.store.of {
		if v := of[ref]; v != nil {
			return v.named()
		}
	}
	for _, hint := range append([]string{s.store.led[ref], name}, all...) {
		for _, c := range s.cat.Classes {
			if !strings.EqualFold(c.API, hint) && !strings.EqualFold(c.API+"s", hint) {
				continue
			}
			if v, err := s.target(ctx, c.API, ref); err == nil && v != nil {
				return v.named()
			}
			return ref
		}
	}
	return ref
}

func (v values) named() string {
	if name := v.text("name_label"); name != "" {
		return v.text("uuid") + " (" + name + ")"
	}
	return v.text("uuid")
}
