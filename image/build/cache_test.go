package build

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func testCache(t *testing.T, fresh bool) *cache {
	return &cache{dir: t.TempDir(), fresh: fresh, say: func(string, time.Duration, bool) {}}
}

// counted makes a step that counts its runs.
func counted(n *int) func(string) error {
	return func(dir string) error {
		*n++
		return os.WriteFile(filepath.Join(dir, "out"), []byte{byte(*n)}, 0o644)
	}
}

func TestStepRunsOnce(t *testing.T) {
	c, runs := testCache(t, false), 0
	for range 2 {
		dir, err := c.step(t.Context(), "step", keyOf("a"), counted(&runs))
		if err != nil {
			t.Fatal(err)
		}
		if data, err := os.ReadFile(filepath.Join(dir, "out")); err != nil || data[0] != 1 {
			t.Errorf("result %v, %v", data, err)
		}
	}
	if _, err := c.step(t.Context(), "step", keyOf("b"), counted(&runs)); err != nil || runs != 2 {
		t.Errorf("%d runs, %v; another key must run again", runs, err)
	}
}

func TestFreshStepRunsAgain(t *testing.T) {
	c, runs := testCache(t, true), 0
	for range 2 {
		if _, err := c.step(t.Context(), "step", keyOf("a"), counted(&runs)); err != nil {
			t.Fatal(err)
		}
	}
	if runs != 2 {
		t.Errorf("%d runs", runs)
	}
}

func TestFailedStepLeavesNothing(t *testing.T) {
	c := testCache(t, false)
	bad := errors.New("bad")
	_, err := c.step(t.Context(), "step", keyOf("a"), func(dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "half"), nil, 0o644), bad)
	})
	if !errors.Is(err, bad) {
		t.Errorf("error %v", err)
	}
	if left, _ := os.ReadDir(c.dir); len(left) != 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestPruneKeepsTheNewest(t *testing.T) {
	c, runs := testCache(t, false), 0
	for i := range keepResults + 3 {
		if _, err := c.step(t.Context(), "step", keyOf(string(rune('a'+i))), counted(&runs)); err != nil {
			t.Fatal(err)
		}
	}
	if left, _ := os.ReadDir(c.dir); len(left) != keepResults {
		t.Errorf("%d results are kept, want %d", len(left), keepResults)
	}
}

func TestKeyOfSeparatesParts(t *testing.T) {
	if keyOf("a", "b") == keyOf("ab") || keyOf("a", "") == keyOf("a") {
		t.Error("different parts give one key")
	}
}

func TestSourceKey(t *testing.T) {
	root := t.TempDir()
	put := func(name, data string) {
		t.Helper()
		file := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	key := func() string {
		t.Helper()
		k, err := sourceKey(root)
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	put("init/main.go", "package main")
	first := key()
	for _, name := range []string{"init/main_test.go", "README.md", "ci/lab/lab.go", ".build/x", "init/testdata/x", "docs/x.png"} {
		put(name, "x")
		if key() != first {
			t.Errorf("%s cannot reach the image but changes the key", name)
		}
	}
	put("init/main.go", "package main // changed")
	if key() == first {
		t.Error("a changed source does not change the key")
	}
}

func TestComplete(t *testing.T) {
	dir := t.TempDir()
	if complete(dir, "k") {
		t.Error("an empty directory is complete")
	}
	for _, name := range append([]string{stampFile}, Outputs...) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("k\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if !complete(dir, "k") || complete(dir, "other") {
		t.Error("the stamp is not what decides")
	}
	if err := os.Remove(filepath.Join(dir, "disk.img")); err != nil {
		t.Fatal(err)
	}
	if complete(dir, "k") {
		t.Error("complete without disk.img")
	}
}
