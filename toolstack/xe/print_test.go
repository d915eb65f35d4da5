package xe

import (
	"strings"
	"testing"
)

// TestNamesCannotSpeakForXe: control characters, line breaks and turned text in
// a value are written out.
func TestNamesCannotSpeakForXe(t *testing.T) {
	evil := "ev\x1b[31mil\nuuid ( RO): fake\u202e ü"
	const shown = `ev\x1b[31mil\nuuid ( RO): fake\u202e ü`
	var out strings.Builder
	p := &printer{w: &out}
	p.table([]row{{"name-label ( RW)", evil}})
	p.list("two\nlines\x07")
	if want := "name-label ( RW)    : " + shown + "\n\n\ntwo\nlines\\a\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	out.Reset()
	p = &printer{w: &out, minimal: true}
	p.table([]row{{"name-label ( RW)", "a\nb"}})
	if err := p.flush(); err != nil || out.String() != "a\\\\nb\n" {
		t.Errorf("minimal: %q, %v", out.String(), err)
	}
}
