package build

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// keepResults is how many results of one step stay in the cache: the last few
// states of a working tree, of which people often return to the one before.
const keepResults = 4

// cache holds the results of build steps by the hash of their inputs. A result
// is a directory that appears by one rename and is never changed.
type cache struct {
	dir string
	// fresh makes every step run; the determinism test uses it.
	fresh bool
	say   func(step string, took time.Duration, cached bool)
}

// step returns the directory of the step's result for this key, made by build
// when it is not there.
func (c *cache) step(ctx context.Context, name, key string, build func(dir string) error) (string, error) {
	if err := ctx.Err(); err != nil {
		return "", err
	}
	start := time.Now()
	final := filepath.Join(c.dir, name+"-"+key[:16])
	if _, err := os.Stat(final); err == nil && !c.fresh {
		now := time.Now()
		_ = os.Chtimes(final, now, now) // only orders prune
		c.say(name, time.Since(start), true)
		return final, nil
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return "", err
	}
	tmp, err := os.MkdirTemp(c.dir, ".tmp-"+name+"-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(tmp)
	if err := os.Chmod(tmp, 0o755); err != nil {
		return "", err
	}
	if err := build(tmp); err != nil {
		return "", fmt.Errorf("%s: %w", name, err)
	}
	if c.fresh {
		if err := os.RemoveAll(final); err != nil {
			return "", err
		}
	}
	if err := os.Rename(tmp, final); err != nil {
		// Another build was faster; its result is the same.
		if _, statErr := os.Stat(final); statErr != nil {
			return "", err
		}
	}
	c.prune(name)
	c.say(name, time.Since(start), false)
	return final, nil
}

// prune removes all but the newest results of a step. It only frees space, so
// its errors are of no interest.
func (c *cache) prune(name string) {
	dirs, _ := filepath.Glob(filepath.Join(c.dir, name+"-????????????????"))
	age := map[string]time.Time{}
	for _, d := range dirs {
		if fi, err := os.Stat(d); err == nil {
			age[d] = fi.ModTime()
		}
	}
	sort.Slice(dirs, func(i, j int) bool { return age[dirs[i]].After(age[dirs[j]]) })
	for _, d := range dirs[min(keepResults, len(dirs)):] {
		_ = os.RemoveAll(d)
	}
}

// keyOf hashes parts so that no two different lists give the same key.
func keyOf(parts ...string) string {
	h := sha256.New()
	for _, p := range parts {
		fmt.Fprintf(h, "%d\n%s\n", len(p), p)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// hashFile is the SHA-256 of a file's content, in hex.
func hashFile(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("%s: %w", file, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// sourceKey hashes the files of the module that can reach the image: all but
// tests, documents and the lab.
func sourceKey(root string) (string, error) {
	h := sha256.New()
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipDir(rel) {
				return filepath.SkipDir
			}
			return nil
		}
		if strings.HasSuffix(rel, "_test.go") || strings.HasSuffix(rel, ".md") || !d.Type().IsRegular() {
			return nil
		}
		sum, err := hashFile(p)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %s\n", sum, rel)
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("hash of the sources: %w", err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func skipDir(rel string) bool {
	base := filepath.Base(rel)
	return rel != "." && strings.HasPrefix(base, ".") || base == "testdata" || rel == "docs" || rel == "ci"
}
