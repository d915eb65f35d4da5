package debian

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
)

// merged are the top directories that in Debian 13 are links into /usr.
var merged = []string{"bin", "sbin", "lib", "lib64"}

// An unpacker extracts packages into one root. Packages may be extracted
// concurrently.
type unpacker struct {
	root *os.Root

	mu     sync.Mutex
	owners map[string]string // path below the root → package
}

// newUnpacker prepares the skeleton that base-files' scripts would make.
func newUnpacker(dir string) (*unpacker, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, err
	}
	for _, d := range merged {
		if err := root.MkdirAll("usr/"+d, 0o755); err != nil {
			return nil, err
		}
		if err := root.Symlink("usr/"+d, d); err != nil {
			return nil, err
		}
	}
	return &unpacker{root: root, owners: map[string]string{}}, nil
}

// add verifies one package's bytes and extracts its files.
func (u *unpacker) add(ctx context.Context, name, deb, sum string) error {
	got, err := fileSum(deb)
	if err != nil {
		return err
	}
	if got != sum {
		return fmt.Errorf("package %s: sha256 is %s, want %s: %w", name, got, sum, errDamaged)
	}
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("dpkg-deb: %w", err)
	}
	err = u.extract(name, pipe)
	_, _ = io.Copy(io.Discard, pipe)
	if werr := cmd.Wait(); err == nil && werr != nil {
		err = fmt.Errorf("dpkg-deb: %w: %s", werr, lastLines(stderr.Bytes()))
	}
	return err
}

// extract writes the members of a package's file archive.
func (u *unpacker) extract(pkg string, r io.Reader) error {
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		name := cleanPath(h.Name)
		if name == "." || isMerged(name) {
			continue
		}
		if !filepath.IsLocal(name) {
			return fmt.Errorf("package %s: path %q leaves the tree", pkg, h.Name)
		}
		if err := u.member(name, h, tr); err != nil {
			return fmt.Errorf("package %s: %s: %w", pkg, name, err)
		}
		if h.Typeflag != tar.TypeDir {
			u.mu.Lock()
			u.owners[name] = pkg
			u.mu.Unlock()
		}
	}
}

// member creates one file, directory or link. A file that two packages bring
// is the later one's; Debian allows that only where it does not matter.
func (u *unpacker) member(name string, h *tar.Header, data io.Reader) error {
	mode := fs.FileMode(h.Mode).Perm()
	if h.Typeflag == tar.TypeDir {
		if err := u.root.MkdirAll(name, 0o755); err != nil {
			return err
		}
		return u.root.Chmod(name, mode|0o700)
	}
	if err := u.root.MkdirAll(path.Dir(name), 0o755); err != nil {
		return err
	}
	if err := u.root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	switch h.Typeflag {
	case tar.TypeSymlink:
		return u.root.Symlink(h.Linkname, name)
	case tar.TypeLink:
		return u.root.Link(cleanPath(h.Linkname), name)
	case tar.TypeReg:
		return u.file(name, h, data, mode)
	}
	return fmt.Errorf("file type %q is not supported", h.Typeflag)
}

func (u *unpacker) file(name string, h *tar.Header, data io.Reader, mode fs.FileMode) error {
	f, err := u.root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return err
	}
	if err := u.root.Chmod(name, mode|modeBits(h.Mode)); err != nil {
		return err
	}
	return u.root.Chtimes(name, h.ModTime, h.ModTime)
}

// modeBits translates set-id and sticky bits, which the image builder needs to
// see even though nothing is ever run with them here.
func modeBits(mode int64) fs.FileMode {
	var m fs.FileMode
	for bit, flag := range map[int64]fs.FileMode{0o4000: fs.ModeSetuid, 0o2000: fs.ModeSetgid, 0o1000: fs.ModeSticky} {
		if mode&bit != 0 {
			m |= flag
		}
	}
	return m
}

// cleanPath maps an archive or absolute path to the one below the root, with
// the merged directories resolved.
func cleanPath(p string) string {
	p = path.Clean(strings.TrimLeft(p, "/"))
	top, _, _ := strings.Cut(p, "/")
	for _, d := range merged {
		if top == d {
			return "usr/" + p
		}
	}
	return p
}

// isMerged tells the skeleton's own entries, which base-files ships as well.
func isMerged(p string) bool {
	for _, d := range merged {
		if p == "usr/"+d {
			return true
		}
	}
	return false
}
