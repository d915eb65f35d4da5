package devhost

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/u-root/u-root/pkg/cpio"
	"github.com/ulikunitz/xz"
)

// Greeting is the first line of the test guest.
const Greeting = "testguest ready"

// BuildGuest writes vmlinuz and initrd.img into dir: the tree's kernel with a user
// space of one program. Typed on its console, "poweroff", "reboot" and "panic" do
// what they say, and the commands of image/guest/agent too; any other line x is
// answered by "echo x".
func BuildGuest(ctx context.Context, tree, dir string) error {
	kernel, err := one(filepath.Join(tree, "boot/vmlinuz-*"))
	if err != nil {
		return err
	}
	vmlinuz, err := os.ReadFile(kernel)
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "vmlinuz"), vmlinuz, 0o644); err != nil {
		return err
	}
	program := filepath.Join(dir, "testguest")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "cairn/ci/devhost/testguest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("test guest: %w: %s", err, out)
	}
	return writeInitrd(tree, program, filepath.Join(dir, "initrd.img"))
}

// modules make the power button work, a panic known to the hypervisor, and devices
// seen. The guest loads them in the order of their numbers, which is this one.
var modules = []string{
	"drivers/acpi/button.ko", "drivers/input/evdev.ko",
	"drivers/misc/pvpanic/pvpanic.ko", "drivers/misc/pvpanic/pvpanic-mmio.ko",
	"drivers/scsi/scsi_common.ko", "drivers/scsi/scsi_mod.ko", "drivers/scsi/virtio_scsi.ko", "drivers/scsi/sd_mod.ko",
	"drivers/ata/libata.ko", "drivers/ata/libahci.ko", "drivers/ata/ahci.ko",
	"drivers/cdrom/cdrom.ko", "drivers/scsi/sr_mod.ko", "fs/isofs/isofs.ko",
	"net/core/failover.ko", "drivers/net/net_failover.ko", "drivers/net/virtio_net.ko",
	"drivers/net/ethernet/intel/e1000e/e1000e.ko", "drivers/virtio/virtio_balloon.ko",
}

func writeInitrd(tree, program, path string) error {
	init, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	records := []cpio.Record{
		cpio.Directory("dev", 0o755), cpio.CharDev("dev/console", 0o600, 5, 1),
		cpio.StaticFile("init", string(init), 0o755),
	}
	for i, m := range modules {
		data, err := module(tree, m)
		if err != nil {
			return err
		}
		records = append(records, cpio.StaticFile(fmt.Sprintf("%02d-%s", i, filepath.Base(m)), string(data), 0o644))
	}
	var buf bytes.Buffer
	w := cpio.Newc.Writer(&buf)
	if err := cpio.WriteRecords(w, records); err != nil {
		return fmt.Errorf("initrd: %w", err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return fmt.Errorf("initrd: %w", err)
	}
	return os.WriteFile(path, buf.Bytes(), 0o644)
}

// module reads and unpacks a module: the kernel takes it plain.
func module(tree, name string) ([]byte, error) {
	path, err := one(filepath.Join(tree, "usr/lib/modules/*/kernel", name+".xz"))
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	r, err := xz.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("module %s: %w", name, err)
	}
	return io.ReadAll(r)
}

func one(pattern string) (string, error) {
	found, err := filepath.Glob(pattern)
	if err != nil || len(found) == 0 {
		return "", fmt.Errorf("no file matches %s", pattern)
	}
	return found[0], nil
}
