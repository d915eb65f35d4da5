// Package document puts what a benchmark found into a page of the
// documentation: a generated section between two comments that name the
// benchmark. The rest of the page is never touched.
package document

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

// Replace writes text into the section of a benchmark ("boot") of a file.
func Replace(file, benchmark, text string) error {
	old, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	updated, err := replaceSection(string(old), benchmark, text)
	if err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	return os.WriteFile(file, []byte(updated), 0o644)
}

func markers(benchmark string) (begin, end string) {
	return "<!-- bench-" + benchmark + ": generated from here -->\n", "<!-- bench-" + benchmark + ": to here -->\n"
}

func replaceSection(doc, benchmark, text string) (string, error) {
	begin, end := markers(benchmark)
	before, rest, ok := strings.Cut(doc, begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		return "", errors.New("markers of the section of bench-" + benchmark + " are missing")
	}
	return before + begin + text + end + after, nil
}
