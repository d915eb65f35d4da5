package xe

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"sync"
)

//go:embed commands.json
var commandsJSON []byte

// Command is an explicit command and the names of its parameters. A name
// ending in ":" takes name:key=value.
type Command struct {
	Name     string   `json:"name"`
	Required []string `json:"required"`
	Optional []string `json:"optional"`
	Flags    []string `json:"flags"`
}

func (c Command) flag(name string) bool {
	for _, f := range c.Flags {
		if f == name {
			return true
		}
	}
	return false
}

// Class is a class of records with its generic commands.
type Class struct {
	Name     string            `json:"name"`  // on the command line: "vm"
	API      string            `json:"class"` // on the wire: "VM"
	Filter   map[string]string `json:"filter"`
	Columns  []string          `json:"columns"`
	Commands []string          `json:"commands"`
	Fields   []Field           `json:"fields"`
}

// Field is one field of a class as the command line shows it.
type Field struct {
	Name   string `json:"name"`
	Source string `json:"source"` // path on the wire; empty: no record holds it
	Type   string `json:"type"`   // string, int, float, bool, datetime, ref, set, map
	Ref    string `json:"ref"`    // class of the references it holds
	Set    bool   `json:"set"`    // param-set may write it
	Add    bool   `json:"add"`    // param-add and param-remove may change it
}

// Field finds a field by name. Fields are compared without regard to "-" and
// "_", because both spellings are in use.
func (c *Class) Field(name string) (Field, error) {
	for _, f := range c.Fields {
		if f.Name == name || strings.ReplaceAll(f.Name, "-", "_") == strings.ReplaceAll(name, "-", "_") {
			return f, nil
		}
	}
	return Field{}, usage("%s has no field %q", c.Name, name)
}

// columns are shown by -list when the user names none.
func (c *Class) columns() []string {
	if len(c.Columns) > 0 {
		return c.Columns
	}
	names := make([]string, len(c.Fields))
	for i, f := range c.Fields {
		names[i] = f.Name
	}
	return names
}

// Catalogue is everything the command line knows of.
type Catalogue struct {
	Commands []Command `json:"commands"`
	Classes  []*Class  `json:"classes"`

	explicit map[string]Command
	generic  map[string]*Class
}

// load decodes the embedded data once; it is part of the program, so failing
// to decode it is a build that must not ship (a test decodes it).
var load = sync.OnceValue(func() *Catalogue {
	c := &Catalogue{explicit: map[string]Command{}, generic: map[string]*Class{}}
	if err := json.Unmarshal(commandsJSON, c); err != nil {
		panic(fmt.Sprintf("xe: commands.json: %v", err))
	}
	for _, cmd := range c.Commands {
		c.explicit[cmd.Name] = cmd
	}
	for _, class := range c.Classes {
		for _, name := range class.Commands {
			c.generic[name] = class
		}
	}
	return c
})

// names lists every command, sorted; hidden ones only with all.
func (c *Catalogue) names(all bool) []string {
	var names []string
	for _, cmd := range c.Commands {
		if all || !cmd.flag("Hidden") {
			names = append(names, cmd.Name)
		}
	}
	for name := range c.generic {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}
