package devhost

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// plan is what the first process is told.
type plan struct {
	Tree, Dir string
	Version   string
	Root      bool // the caller is root, so users of the image exist inside
	Binds     map[string]string
	Bridges   []string
	Daemons   []Daemon
	Listener  bool
}

func (c Config) plan() plan {
	return plan{
		Tree: c.Tree, Dir: c.Dir, Version: c.Version, Root: os.Getuid() == 0, Binds: c.Binds, Bridges: c.Bridges,
		Daemons: c.Daemons, Listener: c.Listener != nil,
	}
}

// enter builds the new root and goes there.
func (p plan) enter() error {
	root := filepath.Join(p.Dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return err
	}
	steps := []func(root string) error{
		privateRoot, p.system, p.writable, devices, p.binds, kernelViews, p.etc, hostName, loopback, p.bridges,
	}
	for _, step := range steps {
		if err := step(root); err != nil {
			return err
		}
	}
	if err := unix.Chroot(root); err != nil {
		return fmt.Errorf("chroot: %w", err)
	}
	return os.Chdir("/")
}

// privateRoot cuts mounts off from the machine and puts a tmpfs on root.
func privateRoot(root string) error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "mode=0755"); err != nil {
		return fmt.Errorf("tmpfs: %w", err)
	}
	return nil
}

// system shows the tree's /usr. It is an overlay whose upper half is in memory, so
// that Binds below /usr find something to lie on; the tree itself stays as it is.
func (p plan) system(root string) error {
	for _, d := range []string{"usr", ".upper", ".work"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			return err
		}
	}
	if err := p.targets(filepath.Join(root, ".upper")); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=%s,upperdir=%s,workdir=%s",
		filepath.Join(p.Tree, "usr"), filepath.Join(root, ".upper"), filepath.Join(root, ".work"))
	if err := unix.Mount("overlay", filepath.Join(root, "usr"), "overlay", 0, options); err != nil {
		return fmt.Errorf("overlay on %s: %w", p.Tree, err)
	}
	for _, d := range []string{"bin", "sbin", "lib", "lib64"} {
		if err := os.Symlink("usr/"+d, filepath.Join(root, d)); err != nil {
			return err
		}
	}
	return os.Mkdir(filepath.Join(root, "tmp"), 0o1777)
}

// targets makes what Binds below /usr lie on. That is done in the upper half: who
// is not root may not write into directories of the tree's owner.
func (p plan) targets(upper string) error {
	for inside, outside := range p.Binds {
		below, ok := strings.CutPrefix(inside, "/usr/")
		if !ok {
			continue
		}
		if err := placeFor(outside, filepath.Join(upper, below)); err != nil {
			return err
		}
	}
	return nil
}

// placeFor makes dst whatever src is.
func placeFor(src, dst string) error {
	st, err := os.Stat(src)
	if err != nil {
		return err
	}
	if st.IsDir() {
		return os.MkdirAll(dst, 0o755)
	}
	if err := os.MkdirAll(filepath.Dir(dst), 0o755); err != nil {
		return err
	}
	return os.WriteFile(dst, nil, 0o644)
}

// writable keeps what the daemons write in the caller's directory, where the
// caller's side of the sockets is too.
func (p plan) writable(root string) error {
	for _, d := range []string{"run", "var", "state"} {
		outside := filepath.Join(p.Dir, d)
		if err := os.MkdirAll(outside, 0o755); err != nil {
			return err
		}
		if err := bind(outside, filepath.Join(root, d), false); err != nil {
			return err
		}
	}
	for _, d := range []string{"lib/libvirt", "log/libvirt/qemu", "cache/libvirt", "lib/swtpm-localca", "tmp"} {
		if err := os.MkdirAll(filepath.Join(p.Dir, "var", d), 0o755); err != nil {
			return err
		}
	}
	if err := errors.Join(p.ownState(), p.socketDirs()); err != nil {
		return err
	}
	link := filepath.Join(p.Dir, "var/run")
	if err := os.Symlink("/run", link); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return nil
}

// ownState gives toolstackd its directory, which on a host PID 1 does.
func (p plan) ownState() error {
	dir := filepath.Join(p.Dir, "var/lib/cairn")
	if err := os.MkdirAll(dir, 0o700); err != nil || !p.Root {
		return err
	}
	return os.Chown(dir, ToolstackID, ToolstackID)
}

// socketDirs are where QEMU makes the sockets of graphical consoles, and hostd those of
// disks that are lent out. They take over the directory's group, which is the
// toolstack's; on a host PID 1 makes them.
func (p plan) socketDirs() error {
	for dir, mode := range map[string]fs.FileMode{"run/libvirt/vnc": 0o770, "run/cairn/exports": 0o750} {
		dir = filepath.Join(p.Dir, dir)
		err := os.MkdirAll(dir, 0o755)
		if err == nil && p.Root {
			err = errors.Join(os.Chown(dir, 0, ToolstackID), os.Chmod(dir, fs.ModeSetgid|mode))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// ToolstackID is the user and group cairn, as in the image.
const ToolstackID = 990

// LocalSocket is where a toolstackd inside may serve the API to root without a password.
const LocalSocket = "/var/lib/cairn/api.sock"

func devices(root string) error {
	dev := filepath.Join(root, "dev")
	for _, d := range []string{"pts", "shm", "net"} {
		if err := os.MkdirAll(filepath.Join(dev, d), 0o755); err != nil {
			return err
		}
	}
	for _, n := range []string{"null", "zero", "full", "random", "urandom", "tty", "net/tun", "kvm"} {
		if _, err := os.Stat("/dev/" + n); err != nil {
			continue
		}
		if err := bind("/dev/"+n, filepath.Join(dev, n), false); err != nil {
			return err
		}
	}
	if err := unix.Mount("devpts", filepath.Join(dev, "pts"), "devpts", 0, "newinstance,ptmxmode=0666"); err != nil {
		return fmt.Errorf("devpts: %w", err)
	}
	if err := os.Symlink("pts/ptmx", filepath.Join(dev, "ptmx")); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", filepath.Join(dev, "shm"), "tmpfs", 0, ""); err != nil {
		return fmt.Errorf("shm: %w", err)
	}
	return nil
}

func (p plan) binds(root string) error {
	for inside, outside := range p.Binds {
		if err := bind(outside, filepath.Join(root, inside), true); err != nil {
			return err
		}
	}
	return nil
}

// kernelViews mounts /proc of the new PID namespace and /sys of the new network
// namespace, where the machine's NICs are not. Its block devices are hidden; so
// are its cgroups, which libvirt would find and not be able to use.
func kernelViews(root string) error {
	for _, fs := range []string{"proc", "sys"} {
		if err := os.Mkdir(filepath.Join(root, fs), 0o555); err != nil {
			return err
		}
	}
	if err := unix.Mount("proc", filepath.Join(root, "proc"), "proc", 0, ""); err != nil {
		return fmt.Errorf("proc: %w", err)
	}
	if err := unix.Mount("sysfs", filepath.Join(root, "sys"), "sysfs", unix.MS_RDONLY, ""); err != nil {
		return fmt.Errorf("sysfs: %w", err)
	}
	for _, d := range []string{"fs/cgroup", "block", "class/block", "dev/block"} {
		target := filepath.Join(root, "sys", d)
		if err := unix.Mount("tmpfs", target, "tmpfs", unix.MS_RDONLY, "size=4k"); err != nil {
			return fmt.Errorf("hide /sys/%s: %w", d, err)
		}
	}
	return nil
}

func hostName(string) error { return unix.Sethostname([]byte(Hostname)) }

// Hostname is what the host inside is called.
const Hostname = "cairn-dev"

// Management is a NIC without a wire, so that hostd has one to manage, and the host
// an address that processes inside reach it by.
const Management = "mgmt0"

func loopback(string) error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return err
	}
	attrs := netlink.LinkAttrs{Name: Management}
	if netlink.LinkAdd(&netlink.Dummy{LinkAttrs: attrs}) != nil {
		// Not every kernel has these. The other kind swallows frames as well; where
		// there is neither the host goes without.
		_ = netlink.LinkAdd(&netlink.Ifb{LinkAttrs: attrs})
	}
	return netlink.LinkSetUp(lo)
}

func (p plan) bridges(string) error {
	for _, name := range p.Bridges {
		b := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}}
		if err := netlink.LinkAdd(b); err != nil {
			return fmt.Errorf("bridge %s: %w", name, err)
		}
		if err := netlink.LinkSetUp(b); err != nil {
			return fmt.Errorf("bridge %s: %w", name, err)
		}
	}
	return nil
}

// etc is all the configuration the daemons need. QEMU runs as this namespace's
// root, which is nobody special outside, and without a mount namespace of its
// own, because it is in one already. Former owners of files are not remembered:
// that takes attributes a user namespace cannot set.
func (p plan) etc(root string) error {
	files := map[string]string{
		"passwd":                "root:x:0:0:root:/root:/bin/false\ncairn:x:990:990::/:/bin/false\nlibvirt-qemu:x:64055:108::/:/bin/false\n",
		"group":                 "root:x:0:\ntty:x:5:\nkvm:x:108:\ncairn:x:990:\nlibvirt-qemu:x:64055:\n",
		"nsswitch.conf":         "passwd: files\ngroup: files\nhosts: files\n",
		"hosts":                 "127.0.0.1 localhost\n",
		"os-release":            "ID=cairn\nVERSION_ID=" + p.Version + "\n",
		"machine-id":            strings.Repeat("c", 32) + "\n",
		"libvirt/libvirtd.conf": "auth_unix_rw = \"none\"\nauth_unix_ro = \"none\"\nunix_sock_rw_perms = \"0770\"\nmax_client_requests = 10\n" + p.socketGroup(),
		"libvirt/qemu.conf":     "user = \"root\"\ngroup = \"root\"\nsecurity_driver = \"none\"\nnamespaces = []\nremember_owner = 0\ncgroup_controllers = []\nstdio_handler = \"logd\"\nswtpm_user = \"root\"\nswtpm_group = \"root\"\n",
		"swtpm_setup.conf":      "create_certs_tool = /usr/bin/swtpm_localca\ncreate_certs_tool_config = /etc/swtpm-localca.conf\ncreate_certs_tool_options = /etc/swtpm-localca.options\nactive_pcr_banks = sha256\n",
		"swtpm-localca.conf":    "statedir = /var/lib/swtpm-localca\nsigningkey = /var/lib/swtpm-localca/signkey.pem\nissuercert = /var/lib/swtpm-localca/issuercert.pem\ncertserial = /var/lib/swtpm-localca/certserial\n",
		"swtpm-localca.options": "--platform-manufacturer Cairn\n--platform-version 1\n--platform-model QEMU\n",
		"libvirt/virtlogd.conf": "",
	}
	for name, text := range files {
		path := filepath.Join(root, "etc", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// socketGroup lets toolstackd's user talk to libvirtd where there is such a user.
func (p plan) socketGroup() string {
	if !p.Root {
		return ""
	}
	return "unix_sock_group = \"cairn\"\n"
}

// bind shows src at dst, making dst whatever src is.
func bind(src, dst string, readOnly bool) error {
	if err := placeFor(src, dst); err != nil {
		return err
	}
	if err := unix.Mount(src, dst, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("bind %s: %w", dst, err)
	}
	if !readOnly {
		return nil
	}
	// Flags the machine's mount has are locked in a user namespace: keep them.
	var fs unix.Statfs_t
	if err := unix.Statfs(dst, &fs); err != nil {
		return fmt.Errorf("bind %s: %w", dst, err)
	}
	keep := uintptr(fs.Flags) & (unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC | unix.MS_NOATIME | unix.MS_NODIRATIME | unix.MS_RELATIME)
	if err := unix.Mount("", dst, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY|keep, ""); err != nil {
		return fmt.Errorf("bind %s read-only: %w", dst, err)
	}
	return nil
}
