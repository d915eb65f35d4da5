//go:build lab

package build

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"cairn/image/closure"
	"cairn/init/supervise/catalogue"
)

// moduleRoot is where go.mod is, seen from this package.
const moduleRoot = "../.."

// builtImage builds the image and takes its root apart again, with fsck.erofs,
// which reads it as the kernel would.
func builtImage(t *testing.T) (b *builder, root string) {
	t.Helper()
	b = labBuilder(t, Config{Module: moduleRoot, Out: filepath.Join(moduleRoot, ".build", "image"), Log: os.Stderr})
	if err := Run(t.Context(), b.Config); err != nil {
		t.Fatal(err)
	}
	root = filepath.Join(t.TempDir(), "root")
	cmd := b.tree.Command(t.Context(), "fsck.erofs", "--extract="+root, filepath.Join(b.Out, "root.erofs"))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("fsck.erofs: %v\n%s", err, out)
	}
	return b, root
}

func labBuilder(t *testing.T, cfg Config) *builder {
	t.Helper()
	b, err := newBuilder(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if b.tree, err = b.openTree(t.Context()); err != nil {
		t.Fatal(err)
	}
	return b
}

// TestSmokeImagePrograms starts every program of the catalogue inside the
// image's own root, and wants every file that an entry declares to be there.
func TestSmokeImagePrograms(t *testing.T) {
	_, root := builtImage(t)
	for _, s := range catalogue.All() {
		programs := append([]string{s.Argv[0]}, s.Programs...)
		slices.Sort(programs)
		for _, p := range slices.Compact(programs) {
			t.Run(s.Name+" "+filepath.Base(p), func(t *testing.T) { starts(t, root, p) })
		}
		for _, f := range s.Files {
			if found, err := filepath.Glob(filepath.Join(root, closure.Clean(f))); err != nil || len(found) == 0 {
				t.Errorf("service %s: %s is not in the image: %v", s.Name, f, err)
			}
			if strings.Contains(f, ".so") {
				t.Run(s.Name+" "+filepath.Base(f), func(t *testing.T) { links(t, root, f) })
			}
		}
	}
}

// questions are for programs that fault when asked for their version.
var questions = map[string]string{"/usr/bin/swtpm_localca": "--help"}

// starts runs a program to see that the dynamic linker is content; that one ends
// with 127 otherwise. What a helper without --version thinks of it is of no matter.
func starts(t *testing.T, root, program string) {
	t.Helper()
	if strings.HasPrefix(program, "/usr/lib/cairn/") {
		executable(t, root, program)
		return
	}
	links(t, root, program)
	question := "--version"
	if other := questions[program]; other != "" {
		question = other
	}
	out, err := inside(t, root, program, question)
	var exit *exec.ExitError
	if err != nil && (!errors.As(err, &exit) || exit.ExitCode() < 0 || exit.ExitCode() == 127) {
		t.Errorf("%s %s: %v\n%s", program, question, err, out)
	}
	for _, bad := range []string{"error while loading shared libraries", "symbol lookup error", "cannot open shared object"} {
		if strings.Contains(out, bad) {
			t.Errorf("%s %s says %q", program, question, out)
		}
	}
}

// executable checks one of our own programs, whose start would be that of PID 1
// or a service.
func executable(t *testing.T, root, program string) {
	t.Helper()
	fi, err := os.Stat(filepath.Join(root, program))
	if err != nil || fi.Mode()&0o111 == 0 {
		t.Errorf("%s: %v, cannot be executed", program, err)
	}
}

// links lets the image's dynamic linker resolve everything a file needs.
func links(t *testing.T, root, file string) {
	t.Helper()
	out, err := inside(t, root, "/lib64/ld-linux-x86-64.so.2", "--list", file)
	if err != nil || strings.Contains(out, "not found") {
		t.Errorf("%s does not link: %v\n%s", file, err, out)
	}
}

// inside runs a program with the extracted image as its root.
func inside(t *testing.T, root, program string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/bin:/usr/sbin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Chroot: root, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestImageShell runs u-root's shell and a few commands in the image.
func TestImageShell(t *testing.T) {
	_, root := builtImage(t)
	out, err := inside(t, root, "/bin/sh", "-c", "echo $((6*7)); ls /usr/lib/cairn | sort | head -n 1; cat /usr/lib/os-release")
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"42\n", "hostd\n", "ID=cairn\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q has no %q", out, want)
		}
	}
}

// TestImageTwice builds a second time without anything from the cache and wants
// the same bytes.
func TestImageTwice(t *testing.T) {
	first, _ := builtImage(t)
	second := Config{Module: moduleRoot, Out: t.TempDir(), Cache: t.TempDir(), Fresh: true, Log: os.Stderr}
	if err := Run(t.Context(), second); err != nil {
		t.Fatal(err)
	}
	for _, name := range Outputs {
		a, err := hashFile(filepath.Join(first.Out, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := hashFile(filepath.Join(second.Out, name))
		if err != nil {
			t.Fatal(err)
		}
		if a != b {
			t.Errorf("%s differs between two builds of the same sources", name)
		}
	}
}

// TestImageModuleLists wants the hand-written module lists of the builder to
// name modules that exist, and the guest's list to be closed.
func TestImageModuleLists(t *testing.T) {
	b := labBuilder(t, Config{Module: moduleRoot, Out: t.TempDir()})
	if err := b.checks(); err != nil {
		t.Fatal(err)
	}
	dep, err := os.ReadFile(b.tree.Path("/usr/lib/modules/" + b.kernel + "/modules.dep"))
	if err != nil {
		t.Fatal(err)
	}
	needs := map[string][]string{}
	for line := range strings.Lines(string(dep)) {
		file, deps, _ := strings.Cut(strings.TrimSpace(line), ":")
		for _, d := range strings.Fields(deps) {
			needs[fileStem(file)] = append(needs[fileStem(file)], fileStem(d))
		}
		if _, ok := needs[fileStem(file)]; !ok {
			needs[fileStem(file)] = nil
		}
	}
	builtin, err := os.ReadFile(b.tree.Path("/usr/lib/modules/" + b.kernel + "/modules.builtin"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range append(slices.Clone(guestModules), hotModules...) {
		if _, ok := needs[m]; !ok && !strings.Contains(string(builtin), "/"+m+".ko\n") {
			t.Errorf("the kernel has no module %s", m)
		}
	}
	for _, m := range guestModules {
		for _, n := range needs[m] {
			if !slices.Contains(guestModules, n) {
				t.Errorf("the guest's %s needs %s, which is not in its list", m, n)
			}
		}
	}
}
