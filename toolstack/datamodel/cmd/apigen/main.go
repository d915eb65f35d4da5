// Command apigen writes the generated part of package api from the datamodel:
// records, enumerations, errors, tables and the typed forms of binding
// behaviour to messages; and the names of error parameters for package xe.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"cairn/toolstack/datamodel"
)

func main() {
	out := flag.String("out", ".", "directory to write *_gen.go to")
	flag.Parse()
	if err := run(*out); err != nil {
		fmt.Fprintln(os.Stderr, "apigen:", err)
		os.Exit(1)
	}
}

func run(dir string) error {
	files, err := generate()
	if err != nil {
		return err
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// generate returns the text of each file by name.
func generate() (map[string][]byte, error) {
	m, err := datamodel.Load()
	if err != nil {
		return nil, err
	}
	g, err := newGenerator(m)
	if err != nil {
		return nil, err
	}
	return g.files()
}
