//go:build lab && amd64

package repository

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/u-root/u-root/pkg/cpio"
	"github.com/ulikunitz/xz"
	"golang.org/x/sys/unix"

	"cairn/ci/lab"
	"cairn/image/debian"
	"cairn/init/hostd/client"
)

// The test binary is also the init of a virtual machine, because the machine that
// tests may have no device-mapper. There it runs the tests named Inside, with the
// programs at insidePrograms.
const (
	insidePrograms = "/programs"
	insideTests    = "Inside"
	insideDone     = "inside: code"
)

// insideModules are loaded in this order.
var insideModules = []string{
	"drivers/block/virtio_blk", "drivers/md/dm-mod", "crypto/crc32c_generic", "lib/crc16", "fs/mbcache", "fs/jbd2/jbd2", "fs/ext4/ext4",
}

// inside is the init.
func inside(m *testing.M) {
	code := 99
	defer func() {
		fmt.Println(insideDone, code)
		unix.Sync()
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}()
	if err := furnish(); err != nil {
		fmt.Println("inside:", err)
		return
	}
	for name, value := range map[string]string{"test.run": insideTests, "test.v": "true", "test.timeout": "10m"} {
		if err := flag.Set(name, value); err != nil {
			fmt.Println("inside:", err)
			return
		}
	}
	code = m.Run()
}

func furnish() error {
	for _, fs := range []struct{ kind, dir string }{{"devtmpfs", "/dev"}, {"proc", "/proc"}, {"sysfs", "/sys"}, {"tmpfs", "/tmp"}, {"tmpfs", "/run"}} {
		if err := os.MkdirAll(fs.dir, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(fs.kind, fs.dir, fs.kind, 0, ""); err != nil {
			return &os.PathError{Op: "mount", Path: fs.dir, Err: err}
		}
	}
	files, err := filepath.Glob("/modules/*")
	if err != nil {
		return err
	}
	slices.Sort(files)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil {
			err = unix.InitModule(text, "")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
	}
	return nil
}

// TestRealLVM runs the tests named Inside on a machine with a blank disk.
func TestRealLVM(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 12*time.Minute)
	defer cancel()
	tree, err := debian.Open(ctx, debian.Config{})
	must(t, err)
	kernels, err := filepath.Glob(tree.Path("/boot/vmlinuz-*"))
	if err != nil || len(kernels) == 0 {
		t.Fatalf("no kernel: %v", err)
	}
	h, err := lab.Start(ctx, lab.Config{
		Name: "volumes", Tools: tree, Firmware: lab.Direct, Kernel: kernels[0], Initrd: initrd(t, tree),
		Cmdline: []string{"console=ttyS0", "quiet", "panic=1"}, MemoryMiB: 2048, Disks: []lab.Disk{{SizeMiB: 2048}},
	})
	must(t, err)
	defer h.Close()
	line, err := h.Text(ctx, insideDone)
	t.Log(h.Tail(200))
	if err != nil || !strings.HasSuffix(strings.TrimSpace(line.Text), insideDone+" 0") {
		t.Errorf("%q, %v", line.Text, err)
	}
}

func initrd(t *testing.T, tree *debian.Tree) string {
	t.Helper()
	dir := t.TempDir()
	program := filepath.Join(dir, "init")
	build := exec.CommandContext(t.Context(), "go", "test", "-c", "-tags", "lab", "-o", program, "cairn/init/storage/repository")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	records := []cpio.Record{
		cpio.Directory("dev", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1), cpio.Directory("programs", 0o755), cpio.Directory("modules", 0o755),
		static(t, "init", program),
	}
	programs, err := filepath.Glob(copyPrograms(t).dir + "/*")
	must(t, err)
	for _, p := range programs {
		records = append(records, static(t, "programs/"+filepath.Base(p), p))
	}
	for i, m := range insideModules {
		records = append(records, cpio.StaticFile(fmt.Sprintf("modules/%d.ko", i), module(t, tree, m), 0o644))
	}
	var archive bytes.Buffer
	w := cpio.Newc.Writer(&archive)
	must(t, cpio.WriteRecords(w, records))
	must(t, cpio.WriteTrailer(w))
	path := filepath.Join(dir, "initrd")
	must(t, os.WriteFile(path, archive.Bytes(), 0o644))
	return path
}

func static(t *testing.T, name, path string) cpio.Record {
	t.Helper()
	text, err := os.ReadFile(path)
	must(t, err)
	return cpio.StaticFile(name, string(text), 0o755)
}

func module(t *testing.T, tree *debian.Tree, name string) string {
	t.Helper()
	found, err := filepath.Glob(tree.Path("/usr/lib/modules/*/kernel/" + name + ".ko.xz"))
	if err != nil || len(found) != 1 {
		t.Fatalf("module %s: %q, %v", name, found, err)
	}
	f, err := os.Open(found[0])
	must(t, err)
	defer f.Close()
	r, err := xz.NewReader(f)
	must(t, err)
	text, err := io.ReadAll(r)
	must(t, err)
	return string(text)
}

// onDisk leads a repository on the machine's disk from its making to its end.
func onDisk(t *testing.T, kind string) {
	if os.Getpid() != 1 {
		return // it is TestRealLVM that counts
	}
	m, _ := realManager(t)
	ctx := t.Context()
	config := client.RepositoryConfig{Type: kind, Config: map[string]string{"device": "/dev/vda"}}
	found, err := m.Probe(ctx, client.RepositoryConfig{Type: kind})
	if err != nil || len(found) != 1 || found[0].UUID != "" || found[0].Config["device"] != "/dev/vda" {
		t.Errorf("probe of a blank disk: %+v, %v", found, err)
	}
	for range 2 {
		_, err = m.Format(ctx, srA, config)
		must(t, err)
	}
	_, err = m.Format(ctx, srB, config)
	refused(t, err, client.CodeInUse)
	_, err = m.Attach(ctx, srA, config)
	must(t, err)
	begin := time.Now()
	life(t, m, srA)
	t.Logf("%s: a life took %v", kind, time.Since(begin))
	again := New(m.cfg) // as a new hostd
	again.Resume(ctx)
	must(t, again.Detach(ctx, srA))
	if found, err = again.Probe(ctx, config); err != nil || len(found) != 1 || found[0].UUID != srA {
		t.Errorf("probe: %+v, %v", found, err)
	}
	for _, other := range []string{client.TypeExt, client.TypeLVM} {
		_, err := again.Format(ctx, srB, client.RepositoryConfig{Type: other, Config: config.Config})
		refused(t, err, client.CodeInUse)
	}
	_, err = again.Attach(ctx, srA, config)
	must(t, err)
	if v, err := again.Volume(ctx, srA, "leaf"); err != nil || v.Backing != "base" || v.VirtualSize != 128*mib || v.Active {
		t.Errorf("leaf: %+v, %v", v, err)
	}
	must(t, again.Erase(ctx, srA, config))
	if found, err = again.Probe(ctx, config); err != nil || len(found) != 1 || found[0].UUID != "" {
		t.Errorf("probe after erase: %+v, %v", found, err)
	}
}

func TestInsideExt(t *testing.T) { onDisk(t, client.TypeExt) }
func TestInsideLVM(t *testing.T) { onDisk(t, client.TypeLVM) }
