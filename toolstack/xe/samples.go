package xe

import (
	"slices"
	"strings"
)

// Samples are command lines, one for each explicit command, that name existing
// objects by uuid: objects maps classes of the API to uuids, and "template" to
// that of one. A command about a class that is not there gets a reference
// nothing has. Tests of whole hosts run them.
func Samples(objects map[string]string, file string) [][]string {
	var all [][]string
	for _, cmd := range load().Commands {
		p, err := parsePlan(cmd.plan)
		if err != nil {
			continue
		}
		kinds := argKinds(p)
		line := []string{cmd.Name, "--force"}
		if class := cmd.selects(); class != "" && !cmd.declares(class) {
			line = append(line, class+"="+objectOr(objects, load().byName[class].API))
		}
		for _, name := range slices.Concat(cmd.Required, needs(cmd, p)) {
			line = append(line, sampleParam(kinds, objects, file, name))
		}
		all = append(all, line)
	}
	return all
}

// codedNeeds are parameters that commands in Go need, though the list of
// commands calls them optional.
var codedNeeds = map[string][]string{
	"vm-install": {"template"}, "snapshot-uninstall": {"snapshot-uuid"}, "snapshot-disk-list": {"snapshot-uuid"},
}

// needs are the parameters a command cannot do without, besides those the list
// of commands says: the guard of its only forms, or arguments without default.
func needs(cmd *Command, p plan) []string {
	if p.code {
		return codedNeeds[cmd.Name]
	}
	main := p.alternatives[len(p.alternatives)-1]
	if main.guard != "" {
		return []string{p.alternatives[0].guard[1:]}
	}
	var names []string
	for _, w := range append(slices.Clone(main.args), main.answer) {
		kind, rest, _ := strings.Cut(w, ":")
		switch kind {
		case "ref", "refs", "pick", "str", "file":
		default:
			continue
		}
		name, _, _ := strings.Cut(rest[strings.LastIndexByte(rest, ':')+1:], "|")
		if !strings.Contains(name, "=") && !slices.Contains(cmd.Required, name) {
			names = append(names, name)
		}
	}
	return names
}

// argKind is how a plan uses a parameter.
type argKind struct{ kind, of string }

// argKinds finds how a plan uses each parameter.
func argKinds(p plan) map[string]argKind {
	kinds := map[string]argKind{}
	for _, st := range slices.Concat(p.alternatives, p.after) {
		for _, w := range st.args {
			noteArg(kinds, w)
		}
		if name, ok := strings.CutPrefix(st.answer, "file:"); ok {
			kinds[strings.TrimSuffix(name, "=")] = argKind{kind: "newfile"}
		}
	}
	return kinds
}

func noteArg(kinds map[string]argKind, w string) {
	if i := strings.IndexByte(w, '='); i > 0 && !strings.Contains(w[:i], ":") {
		w = w[i+1:] // of a record: name=argument
	}
	w, _, _ = strings.Cut(w, "=") // the rest is a default
	part := strings.Split(w, ":")
	of := ""
	if len(part) > 2 {
		of = part[1]
	}
	for name := range strings.SplitSeq(part[len(part)-1], "|") {
		kinds[name] = argKind{part[0], of}
	}
}

// noObject is a reference nothing has.
const noObject = "OpaqueRef:00000000-0000-0000-0000-000000000000"

func objectOr(objects map[string]string, class string) string {
	if uuid, ok := objects[class]; ok {
		return uuid
	}
	return noObject
}

// sampleParam writes one parameter with a value of its kind.
func sampleParam(kinds map[string]argKind, objects map[string]string, file, name string) string {
	if base, isMap := strings.CutSuffix(name, ":"); isMap {
		return base + ":key=value"
	}
	k := kinds[name]
	switch k.kind {
	case "newfile":
		return name + "=-"
	case "file", "base64", "base":
		return name + "=" + file
	case "enum":
		first, _, _ := strings.Cut(k.of, "|")
		return name + "=" + strings.ToLower(first)
	case "int", "bytes", "float":
		return name + "=2"
	case "bool":
		return name + "=yes"
	case "maps":
		return name + "=a:b"
	case "ref", "ref?", "refs", "pick":
		return name + "=" + objectOr(objects, k.of)
	case "host", "pool":
		return name + "=" + objectOr(objects, k.kind)
	}
	if text, ok := sampleTexts[name]; ok {
		return name + "=" + text
	}
	switch name { // of commands in Go
	case "uuid", "snapshot-uuid", "vm-uuid":
		return name + "=" + objectOr(objects, "VM")
	case "template":
		return name + "=" + objectOr(objects, "template")
	}
	return name + "=x"
}

// sampleTexts are texts that mean something.
var sampleTexts = map[string]string{
	"disk-size": "1GiB", "purpose": "licensing", "class": "vm", "vbd-params": "uuid", "vdi-params": "uuid", "params": "uuid",
}
