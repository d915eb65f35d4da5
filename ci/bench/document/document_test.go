package document

import (
	"os"
	"path/filepath"
	"testing"
)

func TestReplace(t *testing.T) {
	file := filepath.Join(t.TempDir(), "page.md")
	begin, end := markers("x")
	if err := os.WriteFile(file, []byte("a\n"+begin+"old\n"+end+"b\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	want := "a\n" + begin + "new\n" + end + "b\n"
	if err := Replace(file, "x", "new\n"); err != nil {
		t.Fatal(err)
	}
	if err := Replace(file, "y", "other\n"); err == nil {
		t.Error("a page without the section is accepted")
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != want {
		t.Errorf("got %q, %v", got, err)
	}
}
