package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func testPages(t *testing.T) map[string][]byte {
	t.Helper()
	list := filepath.Join(t.TempDir(), "coverage")
	if err := os.WriteFile(list, []byte("VM.start TestStart\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	w, err := newWriter(list)
	if err != nil {
		t.Fatal(err)
	}
	pages, err := w.pages()
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

func TestTheReferenceTellsAMessageWhole(t *testing.T) {
	page := string(testPages(t)["VM"])
	_, start, _ := strings.Cut(page, "\n### start\n")
	start, _, _ = strings.Cut(start, "\n### ")
	for _, want := range []string{
		"void VM.start(session_id, vm VM ref, start_paused bool, force bool)", "*start_paused*", "`VM_BAD_POWER_STATE`",
		"role: vm-operator; async",
	} {
		if !strings.Contains(start, want) {
			t.Errorf("VM.start lacks %q:\n%s", want, start)
		}
	}
	if strings.Contains(start, "not built") {
		t.Error("VM.start is covered but said not to be built")
	}
	if _, resume, _ := strings.Cut(page, "\n### resume\n"); !strings.Contains(strings.SplitN(resume, "###", 2)[0], "not built yet") {
		t.Error("VM.resume is not covered, but not said to be missing")
	}
}

var link = regexp.MustCompile(`\]\(([A-Za-z_]+)\.md`)

func TestLinksOfTheReferenceLead(t *testing.T) {
	pages := testPages(t)
	for name, page := range pages {
		for _, found := range link.FindAllSubmatch(page, -1) {
			if pages[string(found[1])] == nil {
				t.Errorf("%s links to %s, which is no page", name, found[1])
			}
		}
		if bytes.Contains(page, []byte("%!")) {
			t.Errorf("%s has a formatting mistake", name)
		}
	}
}
