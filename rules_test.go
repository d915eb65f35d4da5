// Package cairn holds no code: its tests are the house rules of the tree that a
// machine can check.
package cairn

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// Limits of a hand-written file and function, in lines. A file over its limit
// holds a second subject; a function over its limit does two things.
const (
	maxFileLines = 600
	maxFuncLines = 80
	maxMainLines = 60
)

type source struct {
	path  string // slash-separated, relative to the root
	file  *ast.File
	fset  *token.FileSet
	lines int
	gen   bool
}

func (s source) dir() string  { return path.Dir(s.path) }
func (s source) isTest() bool { return strings.HasSuffix(s.path, "_test.go") }

// sources parses every Go file of the tree once.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && p != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata"):
			return filepath.SkipDir
		case d.IsDir() || !strings.HasSuffix(p, ".go"):
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		f, err := parser.ParseFile(fset, p, text, parser.ParseComments)
		if err != nil {
			return err
		}
		all = append(all, source{
			path: filepath.ToSlash(p), file: f, fset: fset,
			lines: strings.Count(string(text), "\n"), gen: ast.IsGenerated(f),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 10 {
		t.Fatalf("found %d Go files: the walk is broken", len(all))
	}
	return all
}

func TestEveryPackageHasOneComment(t *testing.T) {
	docs := map[string]int{}
	for _, s := range sources(t) {
		if s.isTest() && !strings.HasPrefix(s.path, "ci/labtest/") && s.dir() != "." {
			continue
		}
		n := docs[s.dir()]
		if s.file.Doc != nil {
			n++
		}
		docs[s.dir()] = n
	}
	for dir, n := range docs {
		if n != 1 {
			t.Errorf("package %s: %d package comments, want exactly one", dir, n)
		}
	}
}

// layers lists what a part of the tree must not import, with the exceptions.
var layers = []struct {
	from, not string
	except    []string
}{
	{"toolstack/", "cairn/init/", []string{"cairn/init/hostd/client", "cairn/init/config"}},
	{"init/", "cairn/toolstack", nil},
	{"init/", "cairn/image", nil},
	{"init/", "cairn/ci", nil},
	{"toolstack/", "cairn/image", nil},
	{"toolstack/", "cairn/ci", nil},
	{"image/", "cairn/toolstack", nil},
	{"image/", "cairn/ci", nil},
}

func TestLayers(t *testing.T) {
	for _, s := range sources(t) {
		for _, imp := range s.file.Imports {
			p, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			checkImport(t, s, p)
		}
	}
}

func checkImport(t *testing.T, s source, imp string) {
	t.Helper()
	for _, l := range layers {
		if !strings.HasPrefix(s.path, l.from) || !strings.HasPrefix(imp, l.not) || s.isTest() {
			continue
		}
		allowed := false
		for _, e := range l.except {
			allowed = allowed || imp == e
		}
		if !allowed {
			t.Errorf("%s imports %s: %s must not import %s (except %v)", s.path, imp, l.from, l.not, l.except)
		}
	}
}

func TestLengths(t *testing.T) {
	for _, s := range sources(t) {
		if s.gen {
			continue
		}
		if s.lines > maxFileLines {
			t.Errorf("%s: %d lines, limit %d", s.path, s.lines, maxFileLines)
		}
		if path.Base(s.path) == "main.go" && s.file.Name.Name == "main" && s.lines > maxMainLines {
			t.Errorf("%s: %d lines, a main.go has at most %d", s.path, s.lines, maxMainLines)
		}
		if !s.isTest() {
			checkFuncs(t, s)
		}
	}
}

func checkFuncs(t *testing.T, s source) {
	t.Helper()
	for _, d := range s.file.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Body == nil {
			continue
		}
		n := s.fset.Position(f.End()).Line - s.fset.Position(f.Pos()).Line
		if n > maxFuncLines {
			t.Errorf("%s: func %s has %d lines, limit %d", s.path, f.Name.Name, n, maxFuncLines)
		}
	}
}

// vague are package names that say nothing of what belongs inside.
var vague = []string{"util", "utils", "common", "helper", "helpers", "misc", "base", "shared"}

func TestPackageNames(t *testing.T) {
	for _, s := range sources(t) {
		for _, v := range vague {
			if s.file.Name.Name == v {
				t.Errorf("%s: package name %q says nothing", s.path, v)
			}
		}
	}
}

// TestUnitTestsNeverSkip keeps a green run honest: a unit test that cannot run
// has to fail. Lab tests carry a build tag instead of skipping.
func TestUnitTestsNeverSkip(t *testing.T) {
	for _, s := range sources(t) {
		if !s.isTest() {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && strings.HasPrefix(sel.Sel.Name, "Skip") {
				if id, ok := sel.X.(*ast.Ident); ok && (id.Name == "t" || id.Name == "b" || id.Name == "tb") {
					t.Errorf("%s: a test skips itself", s.fset.Position(sel.Pos()))
				}
			}
			return true
		})
	}
}

// A target that make lists as phony and has no rule for does nothing and says so
// with success, which nobody notices.
func TestTargetsHaveRules(t *testing.T) {
	text, err := os.ReadFile("Makefile")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	for _, line := range lines {
		names, ok := strings.CutPrefix(line, ".PHONY:")
		if !ok {
			continue
		}
		for _, name := range strings.Fields(names) {
			if !slices.ContainsFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") }) {
				t.Errorf("make %s has no rule", name)
			}
		}
	}
}
