package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// Tools is where QEMU, qemu-img and the file system tools come from: the
// Debian 13 tools tree. Path is a file of that tree, Command runs one of its
// programs in place.
type Tools interface {
	Path(name string) string
	Command(ctx context.Context, name string, args ...string) *exec.Cmd
}

// KVM says whether this machine can run hosts with KVM, and if not, why. The
// device alone proves nothing: there are machines whose /dev/kvm opens and
// cannot run a stock kernel, so the CPU must have the extension, too.
func KVM() error {
	info, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return err
	}
	if !virtualizes(string(info)) {
		return errors.New("the CPU has neither vmx nor svm")
	}
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return f.Close()
}

var flagsLine = regexp.MustCompile(`(?m)^flags\s*:.*\b(vmx|svm)\b`)

func virtualizes(cpuinfo string) bool { return flagsLine.MatchString(cpuinfo) }

// emulator returns the command for qemu-system-x86_64: the machine's own when
// KVM is usable and it is new enough, else the tree's, because older ones
// corrupt SMP guests under TCG.
func emulator(ctx context.Context, tools Tools, kvm bool, args []string) *exec.Cmd {
	const name = "qemu-system-x86_64"
	if own, err := exec.LookPath(name); kvm && err == nil {
		out, err := exec.CommandContext(ctx, own, "--version").Output()
		if err == nil && recent(string(out)) {
			return exec.CommandContext(ctx, own, args...)
		}
	}
	return tools.Command(ctx, name, args...)
}

var version = regexp.MustCompile(`version (\d+)\.(\d+)`)

// recent is QEMU 8.2 or later.
func recent(banner string) bool {
	m := version.FindStringSubmatch(banner)
	if m == nil {
		return false
	}
	major, _ := strconv.Atoi(m[1])
	minor, _ := strconv.Atoi(m[2])
	return major > 8 || major == 8 && minor >= 2
}

// output runs a tool to its end and returns what it wrote, with its stderr in
// the error.
func output(cmd *exec.Cmd) (string, error) {
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, strings.TrimSpace(string(exit.Stderr)))
	}
	return string(out), err
}
