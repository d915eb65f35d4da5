package xe

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Completion scripts ask xe itself, so that they never grow old.
const bashCompletion = `# bash completion of xe; read it with: source <(xe completion bash)
_xe() {
    local line="${COMP_LINE:0:COMP_POINT}" word
    local -a words
    read -ra words <<<"$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    word="${words[-1]}"
    local IFS=$'\n'
    COMPREPLY=($(xe __complete "${words[@]:1}" 2>/dev/null))
    # bash breaks words at = and :, and wants only what comes after them.
    local prefix="${word%"${COMP_WORDS[COMP_CWORD]#[=:]}"}"
    [[ -n "$prefix" ]] && COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    [[ "${COMPREPLY[0]}" == *[=:] || "${COMPREPLY[0]}" == *, ]] && compopt -o nospace
    return 0
}
complete -F _xe xe
`

const zshCompletion = `#compdef xe
# zsh completion of xe; read it with: source <(xe completion zsh)
_xe() {
    local -a offers
    offers=("${(@f)$(xe __complete "${words[@]:1:$CURRENT-1}" 2>/dev/null)}")
    compadd -S '' -- "${(@M)offers:#*=}"
    compadd -- "${(@)offers:#*=}"
}
compdef _xe xe
`

// completion prints the script of a shell.
func (s *session) completion() error {
	script := map[string]string{"bash": bashCompletion, "zsh": zshCompletion}
	for _, p := range s.Params {
		if text, ok := script[p.Name]; ok {
			_, err := fmt.Fprint(s.cfg.Stdout, text)
			return err
		}
	}
	return usage("completion is there for: bash, zsh")
}

// askTimeout bounds what completion asks the host: nobody waits longer for a
// key.
const askTimeout = 2 * time.Second

// complete prints the words that may stand in place of the last one. It never
// asks the user anything and never complains.
func (s *session) complete(ctx context.Context) error {
	line := s.cfg.Args[1:]
	last := ""
	if len(line) > 0 {
		line, last = line[:len(line)-1], line[len(line)-1]
	}
	s.cfg.Args = line
	inv, err := settle(s.cfg)
	if err != nil {
		return nil
	}
	s.Invocation = inv
	offers := s.offers(ctx, last)
	slices.Sort(offers)
	for _, o := range slices.Compact(offers) {
		if strings.HasPrefix(o, last) {
			fmt.Fprintln(s.cfg.Stdout, o)
		}
	}
	return nil
}

func (s *session) offers(ctx context.Context, last string) []string {
	name, value, isValue := strings.Cut(last, "=")
	switch {
	case s.Command == "" || s.Command == "help":
		return append(s.cat.names(func(c *Command) bool { return !c.flag("Hidden") }, true), "help", "completion")
	case s.Command == "completion":
		return []string{"bash", "zsh"}
	case strings.HasPrefix(last, "-"):
		return []string{"--minimal", "--multiple", "--force", "--all", "--progress", "--no-ssl-verify", "--ca-file", "--fingerprint", "--debug", "-s", "-p", "-u", "-pw", "-pwf"}
	case !isValue:
		return s.paramOffers()
	}
	return prefixed(name+"=", s.valueOffers(ctx, name, value))
}

func prefixed(prefix string, list []string) []string {
	for i := range list {
		list[i] = prefix + list[i]
	}
	return list
}

// paramOffers are the names of parameters.
func (s *session) paramOffers() []string {
	var offers []string
	if class := s.cat.generic[s.Command]; class != nil {
		return s.genericOffers(class)
	}
	cmd := s.cat.explicit[s.Command]
	if cmd == nil {
		return nil
	}
	for _, p := range cmd.params() {
		if strings.HasSuffix(p, ":") {
			offers = append(offers, p)
		} else {
			offers = append(offers, p+"=")
		}
	}
	if class := cmd.selects(); class != "" {
		offers = append(offers, class+"=", "uuid=", "name-label=", "power-state=", "tags:contains=")
	}
	return offers
}

func (s *session) genericOffers(class *Class) []string {
	verb := strings.TrimPrefix(s.Command, class.Name+"-")
	offers := []string{"uuid="}
	switch verb {
	case "list":
		offers = append(offers, "params=")
	case "param-get", "param-add", "param-remove":
		offers = append(offers, "param-name=", "param-key=")
	case "param-clear":
		offers = append(offers, "param-name=")
	}
	for _, f := range class.Fields {
		switch {
		case verb == "list" && f.Kind == "set":
			offers = append(offers, f.Name+":contains=")
		case (verb == "list" || verb == "param-set" && f.Add) && f.Kind == "map":
			offers = append(offers, f.Name+":")
		case verb == "list" || verb == "param-set" && f.Set:
			offers = append(offers, f.Name+"=")
		}
	}
	return offers
}

// valueOffers are the values of a parameter: fields of the class, or objects
// of the pool.
func (s *session) valueOffers(ctx context.Context, name, value string) []string {
	class := s.cat.generic[s.Command]
	if class != nil && (name == "params" || name == "param-name") {
		before := value[:strings.LastIndexByte(value, ',')+1]
		var names []string
		for _, f := range class.Fields {
			names = append(names, f.Name)
		}
		if name == "params" {
			names = append(names, "all")
		}
		return prefixed(before, names)
	}
	if api, byName := s.objectsOf(name); api != "" {
		return s.askObjects(ctx, api, byName)
	}
	return nil
}

// objectsOf is the class whose objects a parameter names, and whether they may
// be named by name.
func (s *session) objectsOf(name string) (api string, byName bool) {
	if class := s.cat.generic[s.Command]; class != nil {
		if name == "uuid" {
			return class.API, false
		}
		f, err := class.field(name)
		if err != nil || f.Ref == "" {
			return "", false
		}
		return f.Ref, false
	}
	cmd := s.cat.explicit[s.Command]
	if cmd == nil {
		return "", false
	}
	if class := cmd.selects(); class != "" && (name == class || name == "uuid" && !cmd.declares("uuid")) {
		return s.cat.byName[class].API, name == class
	}
	if name == "template" {
		return "VM", true
	}
	for word := range strings.FieldsSeq(cmd.plan) {
		word = strings.TrimSuffix(word, "=") // of no default
		word = word[strings.LastIndexByte(word, '=')+1:]
		if part := strings.Split(word, ":"); len(part) == 3 && strings.Contains("|"+part[2]+"|", "|"+name+"|") {
			switch part[0] {
			case "ref", "ref?", "refs", "pick":
				return part[1], part[0] == "pick"
			}
		}
	}
	if name == "host-uuid" {
		return "host", false
	}
	return "", false
}

// askObjects asks the host for the objects of a class.
func (s *session) askObjects(ctx context.Context, api string, byName bool) []string {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	s.in, s.errOut = strings.NewReader(""), io.Discard
	done, err := s.connect(ctx, false)
	if err != nil {
		return nil
	}
	defer done()
	all, err := s.records(ctx, api)
	if err != nil {
		return nil
	}
	class := s.cat.generic[s.Command]
	var offers []string
	for _, r := range all {
		if class != nil && class.Name == "template" && r.values["is_a_template"] != true {
			continue
		}
		offers = append(offers, r.uuid())
		if name := r.text("name_label"); byName && name != "" && !strings.ContainsAny(name, " \t\n") {
			offers = append(offers, name)
		}
	}
	return offers
}
