package lab

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/diskfs/go-diskfs/partition/gpt"
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
func Overwrite(ctx context.Context, tools Tools, disk string, offset, length int64) error {
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

// Extent is where a partition lies on its disk, in bytes.
type Extent struct {
	Offset, Size int64
}

// sector is the logical sector of every lab disk.
const sector = 512

// Partition finds a partition of a raw image by its name.
func Partition(raw, name string) (Extent, error) {
	f, err := os.Open(raw)
	if err != nil {
		return Extent{}, err
	}
	defer f.Close()
	table, err := gpt.Read(f, sector, sector)
	if err != nil {
		return Extent{}, fmt.Errorf("%s: %w", raw, err)
	}
	for _, p := range table.Partitions {
		if p.Name == name {
			return Extent{Offset: int64(p.Start) * sector, Size: int64(p.End-p.Start+1) * sector}, nil
		}
	}
	return Extent{}, fmt.Errorf("%s: no partition %s", raw, name)
}

// CheckExt4 tells whether a partition of a raw image holds an ext4 file system
// that was unmounted cleanly and has no errors. The image is not written.
func CheckExt4(ctx context.Context, tools Tools, raw, partition string) error {
	at, err := Partition(raw, partition)
	if err != nil {
		return err
	}
	part := raw + "." + partition
	defer os.Remove(part)
	source := fmt.Sprintf("driver=raw,offset=%d,size=%d,file.filename=%s", at.Offset, at.Size, escape(raw))
	_, err = output(tools.Command(ctx, "qemu-img", "convert", "--image-opts", source, "-O", "raw", part))
	if err != nil {
		return fmt.Errorf("%s: %w", partition, err)
	}
	head, err := output(tools.Command(ctx, "dumpe2fs", "-h", part))
	if err != nil {
		return fmt.Errorf("%s: %w", partition, err)
	}
	if strings.Contains(head, "needs_recovery") || !cleanState.MatchString(head) {
		return fmt.Errorf("%s was not unmounted: %s", partition, cleanState.FindString(head))
	}
	if _, err := output(tools.Command(ctx, "e2fsck", "-n", "-f", part)); err != nil {
		return fmt.Errorf("%s: %w", partition, err)
	}
	return nil
}

var cleanState = regexp.MustCompile(`(?m)^Filesystem state:\s+clean$`)
