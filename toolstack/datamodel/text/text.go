// Package text says in words what the data model holds: a sentence for each
// class, field, message, enumerated value, error, alert and stream. The words
// are data beside this file; the reference and the command line read them.
// Everything returned is shared and must not be changed.
package text

import (
	"embed"
	"encoding/json"
	"fmt"
	"strings"
)

//go:embed *.json
var files embed.FS

// Class are the words about a class.
type Class struct {
	Doc      string             `json:"class"`
	Fields   map[string]string  `json:"fields"`
	Messages map[string]Message `json:"messages"`
}

// Message are the words about an explicit message. Params and Result are only
// there where the name and the type do not say it all.
type Message struct {
	Doc    string            `json:"doc"`
	Params map[string]string `json:"params"`
	Result string            `json:"result"`
}

// Enum are the words about an enumeration.
type Enum struct {
	Doc    string            `json:"doc"`
	Values map[string]string `json:"values"`
}

// OfClass reads the words about a class.
func OfClass(name string) (*Class, error) { return read[*Class](name) }

// Enums reads the words about all enumerations, by name.
func Enums() (map[string]Enum, error) { return read[map[string]Enum]("enums") }

// Errors reads a sentence for each error code; {name} in it stands for the
// parameter of that name.
func Errors() (map[string]string, error) { return read[map[string]string]("errors") }

// Alerts reads a sentence for each well-known alert.
func Alerts() (map[string]string, error) { return read[map[string]string]("alerts") }

// HTTP reads a sentence for each stream, by action.
func HTTP() (map[string]string, error) { return read[map[string]string]("http") }

func read[T any](name string) (out T, err error) {
	raw, err := files.ReadFile(name + ".json")
	if err == nil {
		err = json.Unmarshal(raw, &out)
	}
	if err != nil {
		return out, fmt.Errorf("text of %s: %w", name, err)
	}
	return out, nil
}

// Sentence fills an error's parameters, whose names are given, into its text. A
// parameter that is missing leaves its name standing.
func Sentence(text string, names, values []string) string {
	for i, name := range names {
		if i < len(values) {
			text = strings.ReplaceAll(text, "{"+name+"}", values[i])
		}
	}
	return text
}
