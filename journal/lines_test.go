package journal

import (
	"slices"
	"testing"
)

func TestLines(t *testing.T) {
	var l Lines
	var got []string
	for _, piece := range []string{"a", "b\nc\n\nd", "", "e", "\n", "rest"} {
		l.Cut([]byte(piece), func(line string) { got = append(got, line) })
	}
	if want := []string{"ab", "c", "", "de"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
