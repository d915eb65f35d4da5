package main

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"cairn/ci/devhost"
	"cairn/ci/lab"
	imagebuild "cairn/image/build"
	"cairn/image/debian"
	hostconfig "cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/toolstack/vm"
)

// Where toolstackd finds itself inside.
const toolstackd = "/usr/sbin/toolstackd"

// realHost is a host in namespaces.
type realHost struct {
	*devhost.Libvirt
	deaths <-chan death
}

// Deaths implements host.
func (h realHost) Deaths() <-chan death { return h.deaths }

// Restart implements host.
func (h realHost) Restart(name string) error { return h.Run(name) }

// Close ends toolstackd in order, so that its database is at rest; the guests
// and the rest end with the namespaces.
func (h realHost) Close() error {
	select {
	case <-h.Gone():
		return nil
	default:
	}
	return errors.Join(h.Stop(toolstackName), h.Libvirt.Close())
}

func startHost(ctx context.Context, cfg config, l *net.TCPListener, log io.Writer) (host, error) {
	tree, err := debian.Open(ctx, debian.Config{})
	if err != nil {
		return nil, err
	}
	program, err := buildHost(ctx, cfg)
	if err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil {
		return nil, err
	}
	binds, err := guest(ctx, tree.Dir, dir)
	if err != nil {
		return nil, err
	}
	binds[toolstackd] = program
	if err := writeDocument(filepath.Join(dir, "state/config")); err != nil {
		return nil, err
	}
	socket, err := l.File()
	if err != nil {
		return nil, err
	}
	defer socket.Close()
	// Each daemon dies once until it is started again, so nothing is lost, except where
	// nobody listens.
	deaths := make(chan death, 16)
	lv, err := devhost.Start(ctx, devhost.Config{
		Tree: tree.Dir, Dir: dir, Binds: binds, Daemons: daemons(cfg.Args), Listener: socket, Version: imagebuild.Version, Output: log,
		Died: func(name, how string) {
			select {
			case deaths <- death{name, how}:
			default:
			}
		},
	})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(lv.Run("hostd"), lv.Run(toolstackName)); err != nil {
		return nil, errors.Join(err, lv.Close())
	}
	return realHost{lv, deaths}, nil
}

// buildHost builds the toolstackd of the real host.
func buildHost(ctx context.Context, cfg config) (string, error) {
	return build(ctx, cfg, "./toolstack/cmd/toolstackd", "dev-toolstackd")
}

// daemons are those of a host that are Cairn's own. As on a host toolstackd runs
// as its own user and is handed its socket.
func daemons(args []string) []devhost.Daemon {
	return []devhost.Daemon{
		{Name: "hostd", Role: devhost.RoleHostd, Socket: client.Socket},
		{Name: toolstackName, Argv: append([]string{toolstackd, "-local", devhost.LocalSocket}, args...), ID: devhost.ToolstackID, Listener: "https"},
	}
}

// writeDocument gives a new host its configuration; one that is there stays.
func writeDocument(dir string) error {
	path := filepath.Join(dir, "cairn.yaml")
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	text := lab.Document(devhost.Hostname, password, "emulation: "+string(hostconfig.EmulationAllowed),
		"management:", "  interface: "+devhost.Management, "  mode: static", "  address: 192.0.2.1/24",
		"storage:", "  local: {type: file, location: "+localStorage+"}")
	return os.WriteFile(path, []byte(text), 0o600)
}

// guest finds the guest to show: the image's demo guest where an image was built,
// else one that is quick to make.
func guest(ctx context.Context, tree, dir string) (map[string]string, error) {
	kernels, err := filepath.Glob(filepath.Join(tree, "boot/vmlinuz-*"))
	if err != nil || len(kernels) == 0 {
		return nil, errors.Join(err, errors.New("the Debian tree has no kernel"))
	}
	binds := map[string]string{vm.DefaultGuestDir + "/vmlinuz": kernels[0]}
	initrd, err := demoGuest()
	if err != nil {
		return nil, err
	}
	if initrd == "" {
		own := filepath.Join(dir, "guest")
		initrd = filepath.Join(own, "initrd.img")
		if _, err := os.Stat(initrd); errors.Is(err, fs.ErrNotExist) {
			err = errors.Join(os.MkdirAll(own, 0o755), devhost.BuildGuest(ctx, tree, own))
			if err != nil {
				return nil, err
			}
		}
	}
	binds[vm.DefaultGuestDir+"/initrd.img"] = initrd
	return binds, nil
}

// demoGuest is the newest one of the image builder's cache, or empty.
func demoGuest() (string, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	found, err := filepath.Glob(filepath.Join(cache, "cairn/image/guest-*/initrd.img"))
	if err != nil || len(found) == 0 {
		return "", err
	}
	return slices.MaxFunc(found, func(a, b string) int { return changed(a).Compare(changed(b)) }), nil
}

func changed(path string) (t time.Time) {
	if info, err := os.Stat(path); err == nil {
		t = info.ModTime()
	}
	return t
}
