package firmware

import (
	"bufio"
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
)

// Dir is where the kernel looks for firmware, in the tree and in the image.
const Dir = "/usr/lib/firmware"

//go:embed files.list
var filesList []byte

// A Tree maps an absolute path of the Debian tree to its place on this machine.
type Tree interface {
	Path(string) string
}

// A File is one firmware file or link of the image.
type File struct {
	Path string // below Dir
	Link string // target of a symbolic link, "" for a file
	Size int64  // bytes; 0 for a link
}

// A Group is one section of files.list, resolved.
type Group struct {
	Name    string
	Early   bool // microcode for the unified kernel image
	Files   []File
	Size    int64
	Missing []string // patterns that match nothing in the tree
}

// Files resolves files.list against a tree. A file that two groups name counts
// for the first.
func Files(t Tree) ([]Group, error) {
	groups, err := parse(filesList)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(t.Path(Dir))
	if err != nil {
		return nil, fmt.Errorf("firmware: %w", err)
	}
	defer root.Close()
	if err := resolve(root.FS(), groups); err != nil {
		return nil, fmt.Errorf("firmware: %w", err)
	}
	return groups, nil
}

// parse reads the list; each group's patterns end up in Missing until they are
// resolved.
func parse(data []byte) ([]Group, error) {
	var groups []Group
	sc := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; sc.Scan(); n++ {
		text, _, _ := strings.Cut(sc.Text(), "#")
		text = strings.TrimSpace(text)
		if text == "" {
			continue
		}
		if head, ok := strings.CutPrefix(text, "["); ok && strings.HasSuffix(head, "]") && !strings.Contains(head, "/") {
			name, flag, _ := strings.Cut(strings.TrimSuffix(head, "]"), " ")
			if name == "" || flag != "" && flag != "early" {
				return nil, fmt.Errorf("files.list: line %d: %q is not a group", n, text)
			}
			groups = append(groups, Group{Name: name, Early: flag != ""})
			continue
		}
		if _, err := path.Match(text, ""); err != nil || len(groups) == 0 || !fs.ValidPath(text) {
			return nil, fmt.Errorf("files.list: line %d: %q is not a pattern of a group", n, text)
		}
		g := &groups[len(groups)-1]
		g.Missing = append(g.Missing, text)
	}
	return groups, sc.Err()
}

// resolve replaces each group's patterns by the files they match in dir.
func resolve(dir fs.FS, groups []Group) error {
	taken := map[string]bool{}
	for i := range groups {
		g := &groups[i]
		patterns := g.Missing
		g.Missing = nil
		for _, pattern := range patterns {
			names, err := fs.Glob(dir, pattern)
			if err != nil {
				return err
			}
			if len(names) == 0 {
				g.Missing = append(g.Missing, pattern)
			}
			for _, name := range names {
				if err := g.add(dir, name, taken); err != nil {
					return err
				}
			}
		}
		slices.SortFunc(g.Files, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	}
	return nil
}

// add takes a file into the group, and behind a link what it points to.
func (g *Group) add(dir fs.FS, name string, taken map[string]bool) error {
	if taken[name] {
		return nil
	}
	taken[name] = true
	info, err := fs.Lstat(dir, name)
	if err != nil {
		return err
	}
	switch {
	case info.Mode().IsRegular():
		g.Files = append(g.Files, File{Path: name, Size: info.Size()})
		g.Size += info.Size()
		return nil
	case info.Mode()&fs.ModeSymlink == 0:
		return fmt.Errorf("%s is neither a file nor a link", name)
	}
	target, err := fs.ReadLink(dir, name)
	if err != nil {
		return err
	}
	g.Files = append(g.Files, File{Path: name, Link: target})
	behind := path.Join(path.Dir(name), target)
	if path.IsAbs(target) || !fs.ValidPath(behind) {
		return fmt.Errorf("link %s leads out of the firmware directory", name)
	}
	if err := g.add(dir, behind, taken); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("link %s leads nowhere: %w", name, err)
	} else if err != nil {
		return err
	}
	return nil
}
