// Package debiantest runs programs of the Debian tree for lab tests: what fails, fails
// the test. Each test has functions of its own, for the goroutine that runs it.
package debiantest

import (
	"testing"

	"cairn/image/debian"
)

// Open finds or makes the tree that the build's list names.
func Open(t testing.TB) *debian.Tree {
	t.Helper()
	tree, err := debian.Open(t.Context(), debian.Config{})
	if err != nil {
		t.Fatal(err)
	}
	return tree
}

// Program returns a function that runs one of the tree's programs and tells what it
// says.
func Program(t testing.TB, name string) func(args ...string) string {
	t.Helper()
	tree := Open(t)
	return func(args ...string) string {
		t.Helper()
		out, err := tree.Command(t.Context(), name, args...).CombinedOutput()
		if err != nil {
			t.Fatalf("%s %v: %v\n%s", name, args, err, out)
		}
		return string(out)
	}
}
