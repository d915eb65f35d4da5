package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// disk makes the file of disk i in the run's directory, unless it is there
// from an earlier power-on.
func (c *Config) disk(ctx context.Context, i int, d Disk) (Disk, error) {
	if d.Path != "" {
		return d, nil
	}
	d.Path = filepath.Join(c.Dir, fmt.Sprintf("disk%d.qcow2", i))
	if _, err := os.Stat(d.Path); err == nil {
		return d, nil
	}
	args := []string{"create", "-q", "-f", "qcow2"}
	if d.Backing != "" {
		backing, err := filepath.Abs(d.Backing)
		if err != nil {
			return d, err
		}
		args = append(args, "-F", "raw", "-b", backing, d.Path)
	} else {
		args = append(args, d.Path, fmt.Sprintf("%dM", max(d.SizeMiB, 1)))
	}
	if _, err := output(c.Tools.Command(ctx, "qemu-img", args...)); err != nil {
		return d, fmt.Errorf("%s: %w", d.Path, err)
	}
	return d, nil
}

// Overwrite changes bytes of a qcow2 disk while its host is off: the way a
// rotten block looks to the host.
func Overwrite(ctx context.Context, tools Tools, disk string, offset int64, length int) error {
	write := fmt.Sprintf("write -q -P 0xa5 %d %d", offset, length)
	if _, err := output(tools.Command(ctx, "qemu-io", "-f", "qcow2", "-c", write, disk)); err != nil {
		return fmt.Errorf("overwrite %s: %w", disk, err)
	}
	return nil
}

// Flatten writes a qcow2 disk out as a raw image, for tools that know only
// those.
func Flatten(ctx context.Context, tools Tools, disk, raw string) error {
	if _, err := output(tools.Command(ctx, "qemu-img", "convert", "-f", "qcow2", "-O", "raw", disk, raw)); err != nil {
		return fmt.Errorf("flatten %s: %w", disk, err)
	}
	return nil
}
