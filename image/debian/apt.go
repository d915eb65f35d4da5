package debian

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	release    = "trixie"
	components = "main contrib non-free-firmware"
	arch       = "amd64"
)

// keyrings are the places of Debian's archive keys; the name changed with the
// move from gpgv to sqv.
var keyrings = []string{
	"/usr/share/keyrings/debian-archive-keyring.gpg",
	"/usr/share/keyrings/debian-archive-keyring.pgp",
}

// apt is a private apt root: its own sources, lists and an empty status file,
// so that the machine's packages and settings play no part. Only how the
// machine reaches its mirrors (proxies, credentials) is taken over.
type apt struct {
	dir string
	log *slog.Logger
}

// newApt writes the root's configuration below dir.
func newApt(ctx context.Context, dir string, m Mirrors, log *slog.Logger) (*apt, error) {
	keyring := ""
	for _, k := range keyrings {
		if _, err := os.Stat(k); err == nil && keyring == "" {
			keyring = k
		}
	}
	if keyring == "" {
		return nil, fmt.Errorf("apt root: %s is missing; run ci/deps", keyrings[0])
	}
	for _, d := range []string{"etc", "lists/partial", "archives/partial"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, fmt.Errorf("apt root: %w", err)
		}
	}
	files := map[string]string{
		"status":           "",
		"etc/sources.list": sourcesList(m, keyring),
		"apt.conf":         aptConf(dir) + transport(ctx),
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			return nil, fmt.Errorf("apt root: %w", err)
		}
	}
	return &apt{dir: dir, log: log}, nil
}

// sourcesList names the release, its updates and its security updates.
func sourcesList(m Mirrors, keyring string) string {
	var b strings.Builder
	for _, s := range []struct{ uri, suite string }{
		{m.Main, release}, {m.Main, release + "-updates"}, {m.Security, release + "-security"},
	} {
		fmt.Fprintf(&b, "deb [arch=%s signed-by=%s] %s %s %s\n", arch, keyring, s.uri, s.suite, components)
	}
	return b.String()
}

// aptConf points every directory of apt below dir. Debug::NoLocking because the
// cache has its own lock; no sandbox user because he could not read the cache.
func aptConf(dir string) string {
	var b strings.Builder
	for _, o := range [][2]string{
		{"Dir", dir}, {"Dir::State", dir}, {"Dir::State::lists", dir + "/lists"}, {"Dir::State::status", dir + "/status"},
		{"Dir::Cache", dir}, {"Dir::Cache::archives", dir + "/archives"},
		{"Dir::Etc", dir + "/etc"}, {"Dir::Etc::sourcelist", dir + "/etc/sources.list"}, {"Dir::Etc::sourceparts", "-"},
		{"Dir::Etc::netrc", "/etc/apt/auth.conf"}, {"Dir::Etc::netrcparts", "/etc/apt/auth.conf.d"},
		{"Dir::Bin::methods", "/usr/lib/apt/methods"}, {"Dir::Bin::dpkg", "/usr/bin/dpkg"},
		{"APT::Architecture", arch}, {"APT::Sandbox::User", ""}, {"Debug::NoLocking", "true"},
		{"Acquire::Languages", "none"}, {"Acquire::Retries", "3"},
	} {
		fmt.Fprintf(&b, "%s %q;\n", o[0], o[1])
	}
	fmt.Fprintf(&b, "#clear APT::Architectures;\nAPT::Architectures { %q; };\n", arch)
	return b.String()
}

// transport returns the machine's own settings for reaching mirrors. A machine
// without any, or without apt-config, simply adds nothing.
func transport(ctx context.Context) string {
	out, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return ""
	}
	return filterTransport(out)
}

// filterTransport keeps proxies, TLS settings and time checks of an
// "apt-config dump".
func filterTransport(dump []byte) string {
	var b strings.Builder
	for line := range strings.Lines(string(dump)) {
		lower := strings.ToLower(line)
		for _, prefix := range []string{
			"acquire::http::", "acquire::https::", "acquire::ftp::", "acquire::tor::",
			"acquire::check-valid-until ", "acquire::check-date ", "acquire::forceipv4 ", "acquire::forceipv6 ",
		} {
			if strings.HasPrefix(lower, prefix) {
				b.WriteString(line)
			}
		}
	}
	return b.String()
}

// command prepares an apt program inside the root. LC_ALL keeps its messages
// readable for us.
func (a *apt) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "APT_CONFIG="+filepath.Join(a.dir, "apt.conf"), "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive")
	return cmd
}

// update refreshes the signed indexes and reads them.
func (a *apt) update(ctx context.Context) (*index, error) {
	a.log.Info("apt-update", "release", release)
	if out, err := a.command(ctx, "apt-get", "update", "-qq", "--error-on=any").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("apt-get update: %w: %s", err, lastLines(out))
	}
	out, err := a.command(ctx, "apt-get", "indextargets", "--format", "$(FILENAME)", "Created-By: Packages").Output()
	if err != nil {
		return nil, fmt.Errorf("apt-get indextargets: %w", err)
	}
	x := newIndex()
	for name := range strings.Lines(string(out)) {
		name = strings.TrimSpace(name)
		if err := a.readIndex(ctx, x, name); err != nil {
			return nil, fmt.Errorf("index %s: %w", filepath.Base(name), err)
		}
	}
	if len(x.byName) == 0 {
		return nil, fmt.Errorf("apt-get update: the archive lists no packages")
	}
	return x, nil
}

// readIndex reads one Packages file through apt's own decompressor.
func (a *apt) readIndex(ctx context.Context, x *index, name string) error {
	cmd := a.command(ctx, "/usr/lib/apt/apt-helper", "cat-file", name)
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = x.read(pipe)
	_, _ = io.Copy(io.Discard, pipe) // let the helper end when the parse did not
	if werr := cmd.Wait(); err == nil {
		err = werr
	}
	return err
}

// fetch downloads packages into dir under names of apt's choice.
func (a *apt) fetch(ctx context.Context, dir string, pkgs []*candidate) error {
	args := []string{"download"}
	for _, p := range pkgs {
		args = append(args, p.Name+"="+p.Version)
	}
	cmd := a.command(ctx, "apt-get", args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("apt-get download: %w", err)
	}
	a.progress(out, len(pkgs))
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("apt-get download: %w: %s", err, lastLines(stderr.Bytes()))
	}
	return nil
}

// progress says how far a download is, at each tenth of the packages.
func (a *apt) progress(out io.Reader, total int) {
	sc, n, step := bufio.NewScanner(out), 0, max(total/10, 1)
	for sc.Scan() {
		if !strings.HasPrefix(sc.Text(), "Get:") {
			continue
		}
		if n++; n%step == 0 || n == total {
			a.log.Info("fetch", "packages", n, "of", total)
		}
	}
	_, _ = io.Copy(io.Discard, out)
}

// lastLines shortens a tool's output for an error.
func lastLines(out []byte) string {
	lines := strings.Split(strings.TrimSpace(string(out)), "\n")
	return strings.Join(lines[max(0, len(lines)-5):], "; ")
}
