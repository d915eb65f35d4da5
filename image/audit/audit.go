// Package audit looks at a finished root tree with a stranger's eyes. It holds
// the promises that do not follow from how the tree was made: no interpreters
// and package tools, no scripts for them, no ELF file that would fail to start
// for a missing library, no udev rule for a group that does not exist.
//
// It only reads; the tree must not change meanwhile.
package audit

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"cairn/image/closure"
	"cairn/image/rootfs"
)

// forbidden are programs the image must not have: package tools, shells other
// than gosh, interpreters, and systemd as a system manager.
var forbidden = []string{
	"apt", "apt-get", "bash", "busybox", "coreutils", "dash", "dbus-daemon", "dpkg", "dpkg-deb", "gawk",
	"mawk", "perl", "python", "rbash", "su", "sudo", "systemctl", "systemd", "tclsh", "zsh",
}

// interpreters that a script may ask for.
var interpreters = []string{"/bin/sh"}

// Check returns one error that names everything wrong with the tree.
func Check(t *rootfs.Tree) error {
	var problems []error
	resolver := closure.New(files{t})
	for _, e := range t.Entries() {
		problems = append(problems, name(e), link(t, e))
		if e.Mode.IsRegular() {
			problems = append(problems, content(t, resolver, e))
		}
	}
	if err := errors.Join(problems...); err != nil {
		return fmt.Errorf("root image audit:\n%w", err)
	}
	return nil
}

var versionSuffix = regexp.MustCompile(`[0-9.]+$`)

func name(e *rootfs.Entry) error {
	dir := path.Base(path.Dir(e.Path))
	if dir != "bin" && dir != "sbin" {
		return nil
	}
	base := path.Base(e.Path)
	if slices.Contains(forbidden, base) || slices.Contains(forbidden, versionSuffix.ReplaceAllString(base, "")) {
		return fmt.Errorf("%s: must not be in the image", e.Path)
	}
	return nil
}

// link wants every symbolic link to lead somewhere.
func link(t *rootfs.Tree, e *rootfs.Entry) error {
	if e.Mode&fs.ModeSymlink == 0 || atRunTime(e.Target) {
		return nil
	}
	if _, err := resolve(t, e.Path); err != nil {
		return fmt.Errorf("%s: leads to %s: %w", e.Path, e.Target, err)
	}
	return nil
}

// atRunTime tells links whose target exists only on a running host: into
// generated directories, and from the skeleton of /etc.
func atRunTime(target string) bool {
	for _, p := range []string{"/run/", "/proc/", "/var/", "/etc/", "../usr/lib/os-release"} {
		if strings.HasPrefix(target, p) {
			return true
		}
	}
	return false
}

func content(t *rootfs.Tree, r *closure.Resolver, e *rootfs.Entry) error {
	head, err := readHead(e)
	if err != nil {
		return fmt.Errorf("%s: %w", e.Path, err)
	}
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		return script(e.Path, head)
	case bytes.HasPrefix(head, []byte("\x7fELF")) && !strings.HasSuffix(e.Path, ".ko"):
		_, err := r.Closure(e.Path)
		return err
	case strings.HasSuffix(e.Path, ".rules"):
		return rules(t, e)
	}
	return nil
}

func readHead(e *rootfs.Entry) ([]byte, error) {
	f, err := e.Open()
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return head[:n], nil
}

func script(p string, head []byte) error {
	line, _, _ := bytes.Cut(head[2:], []byte("\n"))
	words := strings.Fields(string(line))
	if len(words) == 0 || !slices.Contains(interpreters, words[0]) {
		return fmt.Errorf("%s: is a script for %q", p, line)
	}
	return nil
}

var groupRule = regexp.MustCompile(`GROUP="([^"$]+)"`)

// rules wants every group a udev rule names in the group file; udevd ignores
// the rule otherwise, and a device keeps the wrong owner.
func rules(t *rootfs.Tree, e *rootfs.Entry) error {
	groups, err := groupNames(t)
	if err != nil {
		return err
	}
	f, err := e.Open()
	if err != nil {
		return err
	}
	defer f.Close()
	var missing []string
	for sc := bufio.NewScanner(f); sc.Scan(); {
		for _, m := range groupRule.FindAllStringSubmatch(sc.Text(), -1) {
			if !groups[m[1]] && !slices.Contains(missing, m[1]) {
				missing = append(missing, m[1])
			}
		}
	}
	if missing != nil {
		return fmt.Errorf("%s: no group %s", e.Path, strings.Join(missing, ", "))
	}
	return nil
}

func groupNames(t *rootfs.Tree) (map[string]bool, error) {
	e := t.Lookup("usr/share/cairn/etc/group")
	if e == nil {
		return nil, errors.New("no group file in the skeleton of /etc")
	}
	names := map[string]bool{}
	for line := range strings.Lines(string(e.Data)) {
		name, _, _ := strings.Cut(line, ":")
		names[name] = true
	}
	return names, nil
}

// resolve follows p's links in the tree, in every component.
func resolve(t *rootfs.Tree, p string) (*rootfs.Entry, error) {
	rest, done := strings.Split(p, "/"), ""
	for hops := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		if part == ".." {
			done = strings.TrimPrefix(path.Dir("/"+done), "/")
			continue
		}
		here := path.Join(done, part)
		e := t.Lookup(here)
		if e == nil {
			return nil, fmt.Errorf("%s: %w", here, fs.ErrNotExist)
		}
		if e.Mode&fs.ModeSymlink == 0 {
			done = here
			continue
		}
		if hops++; hops > 40 {
			return nil, fmt.Errorf("%s: too many symbolic links", p)
		}
		if path.IsAbs(e.Target) {
			done = ""
		}
		rest = append(strings.Split(strings.Trim(e.Target, "/"), "/"), rest...)
	}
	return t.Lookup(done), nil
}

// files shows a rootfs.Tree to the library resolver.
type files struct{ t *rootfs.Tree }

// Readlink implements closure.Files.
func (f files) Readlink(p string) (string, error) {
	e := f.t.Lookup(p)
	if e == nil {
		return "", fs.ErrNotExist
	}
	return e.Target, nil
}

// Open implements closure.Files.
func (f files) Open(p string) (closure.Content, error) {
	e := f.t.Lookup(p)
	if e == nil {
		return nil, fs.ErrNotExist
	}
	r, err := e.Open()
	if err != nil {
		return nil, err
	}
	if c, ok := r.(closure.Content); ok {
		return c, nil
	}
	defer r.Close()
	return memory{bytes.NewReader(e.Data)}, nil
}

type memory struct{ *bytes.Reader }

// Close implements io.Closer.
func (memory) Close() error { return nil }
