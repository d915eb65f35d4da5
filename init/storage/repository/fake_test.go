package repository

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"cairn/init/storage"
	"cairn/init/storage/media"
	"cairn/init/storage/qemuimg"
	"cairn/init/storage/tool"
)

// machine is a directory that stands for a machine: its programs do to the files
// there what the real ones would, as far as anybody looks, and it writes down what
// it was asked for.
type machine struct {
	dir string

	mu         sync.Mutex
	log        bytes.Buffer
	signatures map[string][]media.Signature // by device
	groups     map[string]*fakeGroup        // by device
	mounts     map[string]string            // source by target
	fail       map[string]error             // by the beginning of a command
	hook       func(command string)         // called before each
}

type fakeGroup struct {
	name    string
	size    int64
	volumes map[string]*fakeVolume
}

type fakeVolume struct {
	size   int64
	active bool
	tags   []string
}

// newMachine has a disk of 10 GiB called sda.
func newMachine(t testing.TB) (*machine, *Manager) {
	t.Helper()
	f := &machine{
		dir: t.TempDir(), signatures: map[string][]media.Signature{}, groups: map[string]*fakeGroup{},
		mounts: map[string]string{}, fail: map[string]error{},
	}
	for _, d := range []string{"sr", "iso", "mnt", "run", "dev", "proc/self", "sys/class/block/sda/device", "sys/class/block/sda/holders"} {
		must(t, os.MkdirAll(filepath.Join(f.dir, d), 0o755))
	}
	f.plant(t, "sys/class/block/sda/size", "20971520\n")
	f.plant(t, "sys/class/block/sda/dev", "8:0\n")
	f.plant(t, "dev/sda", "")
	return f, f.manager()
}

func (f *machine) plant(t testing.TB, path, text string) {
	t.Helper()
	path = filepath.Join(f.dir, path)
	must(t, os.MkdirAll(filepath.Dir(path), 0o755))
	must(t, os.WriteFile(path, []byte(text), 0o644))
}

// manager is hostd after a start: it knows what the machine knows.
func (f *machine) manager() *Manager {
	return New(Config{
		Tools: f, Mounter: f, MountDir: f.dir + "/mnt", Record: f.dir + "/run/repositories.json", LVMDir: f.dir + "/run/lvm", ExportDir: f.dir + "/run/exports",
		Media:        media.Source{Sys: f.dir + "/sys", Dev: f.dir + "/dev", Proc: f.dir + "/proc", Tools: f},
		FilePrefixes: []string{f.dir + "/sr"}, ISOPrefixes: []string{f.dir + "/iso"},
		Log: slog.New(slog.NewTextHandler(&writer{f}, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		}})),
	})
}

// writer puts hostd's log among what the machine was asked for.
type writer struct{ f *machine }

func (w *writer) Write(p []byte) (int, error) {
	w.f.did(strings.TrimSuffix(string(p), "\n"))
	return len(p), nil
}

func (f *machine) did(what string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fmt.Fprintln(&f.log, strings.ReplaceAll(what, f.dir, ""))
}

// transcript returns what was done since the last call.
func (f *machine) transcript() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	defer f.log.Reset()
	return f.log.String()
}

func failure(name string, code int, text string) error {
	return &tool.Failure{Name: name, Code: code, Stderr: text}
}

// Run implements tool.Runner.
func (f *machine) Run(ctx context.Context, c tool.Command) ([]byte, error) {
	if f.hook != nil {
		f.hook(c.String())
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if c.Name != "wipefs" && !slices.Contains(c.Args, "--reportformat") {
		f.did(c.String())
	}
	for prefix, err := range f.fail {
		if strings.HasPrefix(c.String(), prefix) {
			return nil, err
		}
	}
	if c.Name == qemuimg.ServeProgram {
		return nil, echo(ctx, c.Files[0])
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	last := c.Args[len(c.Args)-1]
	switch c.Name {
	case "wipefs":
		if slices.Contains(c.Args, "--all") {
			delete(f.signatures, last)
		}
		return json.Marshal(map[string]any{"signatures": f.signatures[last]})
	case "mke2fs":
		f.signatures[last] = []media.Signature{{Type: "ext4", UUID: c.Args[slices.Index(c.Args, "-U")+1], Label: extLabel}}
		return nil, nil
	case "e2fsck":
		return nil, nil
	case "lvm":
		return f.lvm(c)
	}
	return f.qemuImg(c)
}

// The mounts of a machine: what is mounted on a directory is a directory beside.

func (f *machine) Mounted(target string) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.mounts[target], nil
}

func (f *machine) Prepare(string) error                      { return nil }
func (f *machine) MkdirAll(path string, m fs.FileMode) error { return os.MkdirAll(path, m) }
func (f *machine) Mount(source, target, fstype string, _ []storage.Option) error {
	f.did("mount " + fstype + " " + source + " " + target)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.mounts[target] = source
	if err := os.Remove(target); err != nil {
		return err
	}
	err := os.Rename(source+".content", target)
	if errors.Is(err, fs.ErrNotExist) {
		err = os.Mkdir(target, 0o755)
	}
	return err
}

func (f *machine) Unmount(target string) error {
	f.did("unmount " + target)
	f.mu.Lock()
	defer f.mu.Unlock()
	source := f.mounts[target]
	delete(f.mounts, target)
	if err := os.Rename(target, source+".content"); err != nil {
		return err
	}
	return os.Mkdir(target, 0o755)
}

// qemuImg knows images that are a header.
func (f *machine) qemuImg(c tool.Command) ([]byte, error) {
	switch c.Args[0] {
	case "create":
		return nil, f.create(c.Args)
	case "resize":
		path, size := c.Args[len(c.Args)-2], c.Args[len(c.Args)-1]
		if option(c.Args, "-f") == "raw" {
			n, _ := strconv.ParseInt(size, 10, 64)
			return nil, os.Truncate(path, n)
		}
		return nil, patch(path, func(h []byte) { copy(h[24:], number64(size)) })
	case "rebase":
		path := c.Args[len(c.Args)-1]
		return nil, patch(path, func(h []byte) { setBacking(h, option(c.Args, "-b"), option(c.Args, "-F")) })
	case "commit":
		c.Output([]byte("    (50.00/100%)\r    (100.00/100%)\r\nImage committed.\n"))
		return nil, nil
	case "convert":
		c.Output([]byte("    (25.00/100%)\r"))
		from, to := c.Args[len(c.Args)-2], c.Args[len(c.Args)-1]
		text, err := head(from)
		if err != nil {
			return nil, err
		}
		if option(c.Args, "-O") == "qcow2" {
			setBacking(text, "", "")
		}
		return nil, overwrite(to, text)
	case "check":
		return []byte(`{"image-end-offset": 262144, "check-errors": 0, "leaks": 0}`), nil
	}
	return nil, failure("qemu-img", 1, "unknown command")
}

func (f *machine) create(args []string) error {
	path, size := args[len(args)-2], args[len(args)-1]
	if option(args, "-f") == "raw" {
		n, err := strconv.ParseInt(size, 10, 64)
		if err != nil {
			return err
		}
		return os.Truncate(path, n)
	}
	h := make([]byte, 1024)
	binary.BigEndian.PutUint32(h, 0x514649fb)
	binary.BigEndian.PutUint32(h[4:], 3)
	binary.BigEndian.PutUint32(h[20:], 16)
	copy(h[24:], number64(size))
	binary.BigEndian.PutUint32(h[100:], 104)
	setBacking(h, option(args, "-b"), option(args, "-F"))
	return overwrite(path, h)
}

func setBacking(h []byte, backing, format string) {
	for i := range h[104:512] {
		h[104+i] = 0
	}
	binary.BigEndian.PutUint64(h[8:], 0)
	binary.BigEndian.PutUint32(h[16:], 0)
	if backing == "" {
		return
	}
	binary.BigEndian.PutUint32(h[104:], 0xe2792aca)
	binary.BigEndian.PutUint32(h[108:], uint32(len(format)))
	copy(h[112:], format)
	binary.BigEndian.PutUint64(h[8:], 256)
	binary.BigEndian.PutUint32(h[16:], uint32(len(backing)))
	copy(h[256:], backing)
}

func option(args []string, name string) string {
	if i := slices.Index(args, name); i >= 0 {
		return args[i+1]
	}
	return ""
}

func number64(s string) []byte {
	n, _ := strconv.ParseUint(s, 10, 64)
	return binary.BigEndian.AppendUint64(nil, n)
}

// overwrite keeps the size of what is there, as a device does.
func overwrite(path string, text []byte) error {
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return failure("qemu-img", 1, err.Error())
	}
	_, err = file.WriteAt(text, 0)
	return errors.Join(err, file.Close())
}

func patch(path string, change func([]byte)) error {
	text, err := head(path)
	if err != nil {
		return failure("qemu-img", 1, err.Error())
	}
	change(text)
	return overwrite(path, text)
}

// head is the part of an image that anybody here looks at.
func head(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	text := make([]byte, 1024)
	_, err = io.ReadFull(file, text)
	return text, err
}
