// Package account reads passwd and group files. It is PID 1's own reader, so
// that no name service, plugin or C library stands between it and the user a
// service runs as.
//
// A line that is no entry is passed over: one bad line must not keep a host
// from starting. A Book does not change once it was read.
package account

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// User is what a process needs to become somebody.
type User struct {
	Name   string
	UID    uint32
	GID    uint32
	Home   string
	Groups []uint32 // supplementary
}

// Book is the users and groups of the host.
type Book struct {
	users  map[string]User
	groups map[string]uint32
}

// Read reads passwd and group in dir. What cannot be read is empty, and root is
// always known.
func Read(dir string) (Book, error) {
	passwd, err := os.ReadFile(filepath.Join(dir, "passwd"))
	if err != nil {
		return Parse(nil, nil), fmt.Errorf("accounts: %w", err)
	}
	group, err := os.ReadFile(filepath.Join(dir, "group"))
	if err != nil {
		return Parse(passwd, nil), fmt.Errorf("accounts: %w", err)
	}
	return Parse(passwd, group), nil
}

// Parse reads the texts of both files. The first entry of a name counts.
func Parse(passwd, group []byte) Book {
	b := Book{users: map[string]User{}, groups: map[string]uint32{}}
	members := map[string][]uint32{}
	for f := range fields(group, 4) {
		gid, ok := id(f[2])
		if _, dup := b.groups[f[0]]; dup || !ok {
			continue
		}
		b.groups[f[0]] = gid
		for m := range strings.SplitSeq(f[3], ",") {
			members[m] = append(members[m], gid)
		}
	}
	for f := range fields(passwd, 7) {
		uid, ok := id(f[2])
		gid, ok2 := id(f[3])
		if _, dup := b.users[f[0]]; dup || !ok || !ok2 {
			continue
		}
		b.users[f[0]] = User{Name: f[0], UID: uid, GID: gid, Home: f[5], Groups: members[f[0]]}
	}
	if _, ok := b.users["root"]; !ok {
		b.users["root"] = User{Name: "root", Home: "/"}
	}
	if _, ok := b.groups["root"]; !ok {
		b.groups["root"] = 0
	}
	return b
}

// User finds a user; the empty name is root. group, if given, replaces the
// user's own.
func (b Book) User(name, group string) (User, error) {
	if name == "" {
		name = "root"
	}
	u, ok := b.users[name]
	if !ok {
		return User{}, fmt.Errorf("user %q is not in passwd", name)
	}
	u.Groups = slices.Clone(u.Groups)
	if group == "" {
		return u, nil
	}
	gid, err := b.Group(group)
	u.GID = gid
	return u, err
}

// Group finds a group; the empty name is root.
func (b Book) Group(name string) (uint32, error) {
	if name == "" {
		name = "root"
	}
	gid, ok := b.groups[name]
	if !ok {
		return 0, fmt.Errorf("group %q is not in group", name)
	}
	return gid, nil
}

// fields yields the lines that have exactly n fields and a name.
func fields(data []byte, n int) func(func([]string) bool) {
	return func(yield func([]string) bool) {
		for line := range bytes.Lines(data) {
			f := strings.Split(strings.TrimRight(string(line), "\r\n"), ":")
			if len(f) != n || f[0] == "" || strings.HasPrefix(f[0], "#") {
				continue
			}
			if !yield(f) {
				return
			}
		}
	}
}

// id reads a number; the largest is "no id" to the kernel.
func id(s string) (uint32, bool) {
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n != 1<<32-1
}
