package xe

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
)

//go:embed data/classes.json
var classesJSON []byte

//go:embed data/commands.json
var commandsJSON []byte

//go:embed data/calls.txt
var callsText string

// Command is an explicit command and the names of its parameters. A name
// ending in ":" takes name:key=value.
type Command struct {
	Name     string   `json:"name"`
	Required []string `json:"required"`
	Optional []string `json:"optional"`
	Flags    []string `json:"flags"`

	plan string // from calls.txt, parsed when it runs
}

func (c *Command) flag(name string) bool { return slices.Contains(c.Flags, name) }

// selects is the class the command's objects are selected from, or "".
func (c *Command) selects() string {
	for _, class := range []string{"vm", "host", "sr"} {
		if c.flag(strings.ToUpper(class[:1]) + class[1:] + "_selectors") {
			return class
		}
	}
	return ""
}

// declares reports whether the command has a parameter of this name.
func (c *Command) declares(name string) bool {
	for _, p := range c.params() {
		if base, isMap := strings.CutSuffix(p, ":"); base == name ||
			isMap && strings.HasPrefix(name, base+"-") || strings.HasSuffix(p, "-") && strings.HasPrefix(name, p) {
			return true
		}
	}
	return false
}

func (c *Command) params() []string { return append(slices.Clip(c.Required), c.Optional...) }

// Class is a class of records with its generic commands.
type Class struct {
	Name     string            `json:"name"`  // on the command line: "vm"
	API      string            `json:"class"` // on the wire: "VM"
	Like     string            `json:"like"`  // class whose fields this one has
	Filter   map[string]string `json:"filter"`
	Nonempty string            `json:"nonempty"` // only records where this field holds something
	Columns  []string          `json:"columns"`
	Commands []string          `json:"commands"`
	Fields   []*Field          `json:"fields"`
}

// Field is one field of a class as the command line shows it.
type Field struct {
	Name   string   `json:"name"`
	From   string   `json:"from"`   // path on the wire; "a.b" follows reference a
	Via    string   `json:"via"`    // class that reference leads to
	Call   string   `json:"call"`   // message that answers it, instead of From
	Type   string   `json:"type"`   // string, int, float, bool, datetime, ref, set, map
	Kind   string   `json:"kind"`   // set or map where it counts as one for filters and marks
	Ref    string   `json:"ref"`    // class of the references it holds
	How    string   `json:"how"`    // a way of writing it that is its own
	Elem   string   `json:"elem"`   // type of a set's elements, if not string
	Words  string   `json:"words"`  // values that are shown by another word
	Values []string `json:"values"` // what param-set may write
	Absent string   `json:"absent"` // shown when no record holds it
	Set    bool     `json:"set"`    // param-set may write it
	Add    bool     `json:"add"`    // param-add and param-remove may change it
	One    *string  `json:"one"`    // its messages name one element: add_repository
	Put    string   `json:"put"`    // how a map entry is written, if not by add_to
	Comma  bool     `json:"comma"`  // its elements are parted by commas
	Cost   bool     `json:"cost"`   // not worth a call for each line of a list
	Old    bool     `json:"old"`    // deprecated
	Fold   bool     `json:"fold"`   // filters ignore case
}

// field finds a field by name. Fields are compared without regard to "-" and
// "_", because both spellings are in use.
func (c *Class) field(name string) (*Field, error) {
	plain := strings.ReplaceAll(name, "-", "_")
	for _, f := range c.Fields {
		if f.Name == name || strings.ReplaceAll(f.Name, "-", "_") == plain {
			return f, nil
		}
	}
	return nil, usage("unknown field %q of class %s", name, c.Name)
}

// filterField finds what a filter is about: a field, or in the older way of
// writing a map or set and its key ("other-config-key").
func (c *Class) filterField(p Param) (*Field, string, error) {
	f, err := c.field(p.Name)
	if err == nil || p.Key != "" {
		return f, p.Key, err
	}
	var best *Field
	for _, f := range c.Fields {
		longer := best == nil || len(f.Name) > len(best.Name)
		if f.Kind != "" && longer && strings.HasPrefix(p.Name, f.Name+"-") && len(p.Name) > len(f.Name)+1 {
			best = f
		}
	}
	if best == nil {
		return nil, "", err
	}
	return best, p.Name[len(best.Name)+1:], nil
}

// Catalogue is everything the command line knows of.
type Catalogue struct {
	Commands []*Command
	Classes  []*Class
	Words    map[string]map[string]string

	explicit map[string]*Command
	generic  map[string]*Class
	byName   map[string]*Class
}

// load decodes the embedded data once; it is part of the program, so failing
// to decode it is a build that must not ship (a test decodes it).
var load = sync.OnceValue(func() *Catalogue {
	c := &Catalogue{explicit: map[string]*Command{}, generic: map[string]*Class{}, byName: map[string]*Class{}}
	if err := json.Unmarshal(commandsJSON, &c.Commands); err != nil {
		panic(fmt.Sprintf("xe: commands.json: %v", err))
	}
	if err := json.Unmarshal(classesJSON, c); err != nil {
		panic(fmt.Sprintf("xe: classes.json: %v", err))
	}
	plans := splitPlans(callsText)
	for _, cmd := range c.Commands {
		cmd.plan = plans[cmd.Name]
		c.explicit[cmd.Name] = cmd
	}
	for _, class := range c.Classes {
		if class.Like != "" {
			class.Fields = c.byName[class.Like].Fields
		}
		c.byName[class.Name] = class
		for _, name := range class.Commands {
			c.generic[name] = class
		}
	}
	return c
})

// classOf is the first class of the command line with this name on the wire.
func (c *Catalogue) classOf(api string) *Class {
	for _, class := range c.Classes {
		if class.API == api {
			return class
		}
	}
	return nil
}

// declares reports whether the named command has a parameter of this name.
func (c *Catalogue) declares(command, name string) bool {
	cmd, ok := c.explicit[command]
	return ok && cmd.declares(name)
}

// names lists every command, sorted; hidden ones only with all, and without all
// only the everyday ones when the data marks them so.
func (c *Catalogue) names(keep func(*Command) bool, generic bool) []string {
	var names []string
	for _, cmd := range c.Commands {
		if keep(cmd) {
			names = append(names, cmd.Name)
		}
	}
	for name := range c.generic {
		if generic {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
