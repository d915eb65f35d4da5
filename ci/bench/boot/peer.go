package main

import (
	"context"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"cairn/image/debian"
)

// peerFiles decide what the peer is; they are its cache key.
//
//go:embed peer.list peer-ready peer.service peer.network
var peerFiles embed.FS

// peerFormat is part of the key: raise it when peer.go changes the result.
const peerFormat = "peer-1"

// peer is a stock Debian as kernel, initramfs and a raw ext4 disk.
type peer struct {
	Dir string
}

func (p peer) Kernel() string   { return filepath.Join(p.Dir, "vmlinuz") }
func (p peer) Initrd() string   { return filepath.Join(p.Dir, "initrd.img") }
func (p peer) Disk() string     { return filepath.Join(p.Dir, "disk.raw") }
func (p peer) Packages() string { return filepath.Join(p.Dir, "packages") }

// openPeer returns the cached peer, making it first if need be.
func openPeer(ctx context.Context, tools *debian.Tree) (peer, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return peer{}, err
	}
	key, err := peerKey()
	if err != nil {
		return peer{}, err
	}
	p := peer{Dir: filepath.Join(cache, "cairn", "peer-"+key)}
	if _, err := os.Stat(p.Packages()); !errors.Is(err, fs.ErrNotExist) {
		return p, err
	}
	work := p.Dir + ".new"
	defer privileged(ctx, "rm", "-rf", work).Run()
	if err := makePeer(ctx, tools, work); err != nil {
		return peer{}, fmt.Errorf("peer: %w", err)
	}
	return p, os.Rename(filepath.Join(work, "out"), p.Dir)
}

func peerKey() (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, peerFormat)
	err := fs.WalkDir(peerFiles, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(peerFiles, name)
		fmt.Fprintf(h, "%s %d\n%s", name, len(b), b)
		return err
	})
	return hex.EncodeToString(h.Sum(nil))[:16], err
}

// makePeer fills work/out. Installing Debian runs its maintainer scripts in a
// chroot, so this, and only this, needs root or sudo.
func makePeer(ctx context.Context, tools *debian.Tree, work string) error {
	if err := privileged(ctx, "rm", "-rf", work).Run(); err != nil {
		return err
	}
	root, out := filepath.Join(work, "root"), filepath.Join(work, "out")
	if err := os.MkdirAll(out, 0o755); err != nil {
		return err
	}
	args, err := mmdebstrap(ctx, work, root)
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "bench-boot: installing the Debian peer, some minutes")
	install := privileged(ctx, "mmdebstrap", args...)
	install.Stdout, install.Stderr = os.Stderr, os.Stderr
	if err := install.Run(); err != nil {
		return fmt.Errorf("mmdebstrap: %w", err)
	}
	return exportPeer(ctx, tools, root, out)
}

func mmdebstrap(ctx context.Context, work, root string) ([]string, error) {
	mirrors, conf, err := debian.Machine(ctx)
	if err != nil {
		return nil, err
	}
	aptConf := filepath.Join(work, "apt.conf")
	if err := os.WriteFile(aptConf, []byte(conf+"APT::Install-Recommends \"false\";\n"), 0o644); err != nil {
		return nil, err
	}
	if err := os.CopyFS(filepath.Join(work, "files"), peerFiles); err != nil {
		return nil, err
	}
	files := filepath.Join(work, "files")
	list, err := packages(filepath.Join(files, "peer.list"))
	if err != nil {
		return nil, err
	}
	args := []string{
		"--variant=minbase", "--mode=root", "--format=directory", "--aptopt=" + aptConf,
		"--keyring=/usr/share/keyrings/debian-archive-keyring.gpg", "--include=" + strings.Join(list, ","),
		"--customize-hook=upload " + files + "/peer-ready /usr/local/sbin/peer-ready",
		"--customize-hook=upload " + files + "/peer.service /etc/systemd/system/peer.service",
		"--customize-hook=upload " + files + "/peer.network /etc/systemd/network/peer.network",
		`--customize-hook=chmod 755 "$1/usr/local/sbin/peer-ready"`,
		`--customize-hook=chroot "$1" systemctl enable peer.service systemd-networkd.service`,
		`--customize-hook=echo "/dev/vda / ext4 defaults 0 1" >"$1/etc/fstab"; echo peer >"$1/etc/hostname"`,
		"trixie", root,
	}
	return append(args, "deb "+mirrors.Main+" trixie main", "deb "+mirrors.Main+" trixie-updates main",
		"deb "+mirrors.Security+" trixie-security main"), nil
}

func packages(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	var list []string
	for line := range strings.Lines(string(b)) {
		if name, _, _ := strings.Cut(line, "#"); strings.TrimSpace(name) != "" {
			list = append(list, strings.TrimSpace(name))
		}
	}
	return list, err
}

// exportPeer turns the installed root into what QEMU boots. The list of
// packages is written last: it marks the peer as complete.
func exportPeer(ctx context.Context, tools *debian.Tree, root, out string) error {
	p := peer{Dir: out}
	mkfs := tools.Command(ctx, "mke2fs", "-q", "-t", "ext4", "-d", root, p.Disk(), "4G")
	script := fmt.Sprintf(`set -e
cp %[1]s/boot/vmlinuz-* %[2]s/vmlinuz
cp %[1]s/boot/initrd.img-* %[2]s/initrd.img
chmod 644 %[2]s/vmlinuz %[2]s/initrd.img`, root, out)
	steps := []*exec.Cmd{
		privileged(ctx, "sh", "-c", script),
		withEnv(privileged(ctx, mkfs.Path, mkfs.Args[1:]...), mkfs.Env),
		privileged(ctx, "sh", "-c", fmt.Sprintf("chown %d:%d %s/*", os.Getuid(), os.Getgid(), out)),
	}
	for _, s := range steps {
		if b, err := s.CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", filepath.Base(s.Path), err, b)
		}
	}
	status, err := os.ReadFile(filepath.Join(root, "var/lib/dpkg/status"))
	if err != nil {
		return err
	}
	return os.WriteFile(p.Packages(), []byte(versions(string(status))), 0o644)
}

// versions lists the installed packages with their versions, one per line.
func versions(status string) string {
	var b strings.Builder
	name := ""
	for line := range strings.Lines(status) {
		if v, ok := strings.CutPrefix(line, "Package: "); ok {
			name = strings.TrimSpace(v)
		} else if v, ok := strings.CutPrefix(line, "Version: "); ok {
			fmt.Fprintln(&b, name, strings.TrimSpace(v))
		}
	}
	return b.String()
}

// privileged prepares a command as root, by sudo when this program is not.
func privileged(ctx context.Context, name string, args ...string) *exec.Cmd {
	if os.Getuid() == 0 {
		return exec.CommandContext(ctx, name, args...)
	}
	return exec.CommandContext(ctx, "sudo", append([]string{"-E", name}, args...)...)
}

func withEnv(cmd *exec.Cmd, env []string) *exec.Cmd {
	cmd.Env = env
	return cmd
}
