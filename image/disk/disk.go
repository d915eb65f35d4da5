// Package disk writes the disk image of an installed host: a GPT with the ESP,
// the two image slots, META, STATE and LOGS.
//
// The image is a sparse file: what is zero takes no room. Every GUID, volume
// serial and time is a function of the content, so equal inputs give equal
// images.
package disk

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"

	"github.com/diskfs/go-diskfs"
	diskfsdisk "github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"cairn/image/erofs"
	"cairn/init/slots"
)

const (
	mib        = 1 << 20
	sectorSize = 512

	// Types of the Discoverable Partitions Specification that go-diskfs does
	// not name, and ours for META.
	typeRootVerity gpt.Type = "2C7357ED-EBD2-46D9-AEC1-23D437EC2BF5"
	typeMeta       gpt.Type = "6A0C9DC4-8E1B-4E57-9F0E-3D1C5B0E4A11"
)

// Layout is the size of each partition, in bytes.
type Layout struct {
	Disk, ESP, Root, Hash, Meta, State, Logs int64
}

// Lab is the layout of the test and demo disk. The virtual size only bounds the
// sparse file.
var Lab = Layout{
	Disk: 8192 * mib, ESP: 512 * mib, Root: 1024 * mib, Hash: 32 * mib,
	Meta: 4 * mib, State: 2048 * mib, Logs: 1024 * mib,
}

// Content is what goes onto the disk.
type Content struct {
	RootHash         string
	RootFile, Verity string            // images of slot A
	ESP              map[string][]byte // path → file
	BuildTime        int64
}

// Tools runs programs of the Debian tree.
type Tools interface {
	Command(ctx context.Context, name string, args ...string) *exec.Cmd
}

// partition is one row of the table.
type partition struct {
	name string
	size int64
	kind gpt.Type
	guid string
}

// Build writes the disk image to file, replacing it.
func Build(ctx context.Context, t Tools, l Layout, c Content, file string) error {
	if err := os.RemoveAll(file); err != nil {
		return err
	}
	d, err := diskfs.Create(file, l.Disk, diskfs.SectorSize512)
	if err != nil {
		return fmt.Errorf("disk image: %w", err)
	}
	parts, err := l.partitions(c.RootHash)
	if err != nil {
		return errors.Join(err, d.Close())
	}
	table := layOut(parts)
	err = errors.Join(d.Partition(table), writeESP(d, c), d.Close())
	if err != nil {
		return fmt.Errorf("disk image: %w", err)
	}
	return fill(ctx, t, table, c, file)
}

func (l Layout) partitions(rootHash string) ([]partition, error) {
	root, hash, err := slots.PartUUIDs(rootHash)
	if err != nil {
		return nil, err
	}
	return []partition{
		{slots.ESP, l.ESP, gpt.EFISystemPartition, fixedGUID(slots.ESP)},
		{slots.A.RootName(), l.Root, gpt.LinuxRootX86_64, root},
		{slots.A.HashName(), l.Hash, typeRootVerity, hash},
		{slots.B.RootName(), l.Root, gpt.LinuxRootX86_64, fixedGUID(slots.B.RootName())},
		{slots.B.HashName(), l.Hash, typeRootVerity, fixedGUID(slots.B.HashName())},
		{slots.Meta, l.Meta, typeMeta, fixedGUID(slots.Meta)},
		{slots.State, l.State, gpt.LinuxFilesystem, fixedGUID(slots.State)},
		{slots.Logs, l.Logs, gpt.LinuxFilesystem, fixedGUID(slots.Logs)},
	}, nil
}

// layOut places the partitions one after another, aligned to 1 MiB.
func layOut(parts []partition) *gpt.Table {
	t := &gpt.Table{
		LogicalSectorSize: sectorSize, PhysicalSectorSize: sectorSize,
		ProtectiveMBR: true, GUID: fixedGUID("disk"),
	}
	at := int64(mib)
	for i, p := range parts {
		t.Partitions = append(t.Partitions, &gpt.Partition{
			Index: i + 1, Start: uint64(at / sectorSize), End: uint64((at+p.size)/sectorSize) - 1,
			Size: uint64(p.size), Type: p.kind, Name: p.name, GUID: p.guid,
		})
		at += p.size
	}
	return t
}

// fixedGUID is the same for every image: the lab's disks are told apart by the
// root hash, installed ones get random GUIDs from the installer.
func fixedGUID(name string) string {
	return erofs.UUID(digest("cairn "+name), 0)
}

func digest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func writeESP(d *diskfsdisk.Disk, c Content) error {
	// go-diskfs takes the time of new files from here, as reproducible builds do.
	if err := os.Setenv("SOURCE_DATE_EPOCH", strconv.FormatInt(c.BuildTime, 10)); err != nil {
		return err
	}
	fs, err := d.CreateFilesystem(diskfsdisk.FilesystemSpec{
		Partition: 1, FSType: filesystem.TypeFat32, VolumeLabel: slots.ESP, Reproducible: true,
	})
	if err != nil {
		return err
	}
	defer fs.Close()
	return writeFiles(fs, c.ESP)
}

// writeFiles puts files and the directories above them into a file system.
func writeFiles(fs filesystem.FileSystem, files map[string][]byte) error {
	for _, p := range sortedKeys(files) {
		if err := fs.Mkdir(path.Dir(p)); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		f, err := fs.OpenFile(p, os.O_CREATE|os.O_RDWR)
		if err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{f}, bytes.NewReader(files[p]), make([]byte, 4*mib)); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
		if err := f.Close(); err != nil {
			return fmt.Errorf("%s: %w", p, err)
		}
	}
	return nil
}

func sortedKeys(m map[string][]byte) []string {
	var keys []string
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

// fill writes everything but the ESP.
func fill(ctx context.Context, t Tools, table *gpt.Table, c Content, file string) error {
	images := map[string]string{slots.A.RootName(): c.RootFile, slots.A.HashName(): c.Verity}
	for _, p := range table.Partitions {
		var err error
		switch {
		case images[p.Name] != "":
			err = copyInto(file, p, images[p.Name])
		case p.Name == slots.State || p.Name == slots.Logs:
			err = ext4(ctx, t, p, c.BuildTime, file)
		}
		if err != nil {
			return fmt.Errorf("disk image: %s: %w", p.Name, err)
		}
	}
	return nil
}

// ext4 makes an empty file system in place. The file is all holes there, so
// nothing has to be zeroed, now or by the kernel at the first mount.
func ext4(ctx context.Context, t Tools, p *gpt.Partition, buildTime int64, file string) error {
	sum := digest("cairn ext4 " + p.Name)
	ext := fmt.Sprintf("offset=%d,hash_seed=%s,nodiscard,root_owner=0:0,lazy_itable_init=1,lazy_journal_init=1,assume_storage_prezeroed=1",
		int64(p.Start)*sectorSize, erofs.UUID(sum, 16))
	cmd := t.Command(ctx, "mkfs.ext4", "-q", "-F", "-m", "0", "-b", "4096", "-L", p.Name, "-U", erofs.UUID(sum, 0),
		"-E", ext, file, strconv.FormatUint(p.Size/1024, 10)+"k")
	now := strconv.FormatInt(buildTime, 10)
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, "E2FSPROGS_FAKE_TIME="+now, "SOURCE_DATE_EPOCH="+now)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.ext4: %w: %s", err, out)
	}
	return nil
}

// copyInto writes src into a partition of file, leaving holes for zeros.
func copyInto(file string, p *gpt.Partition, src string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer in.Close()
	fi, err := in.Stat()
	if err != nil {
		return err
	}
	if uint64(fi.Size()) > p.Size {
		return fmt.Errorf("%s has %d bytes, the partition %d", src, fi.Size(), p.Size)
	}
	out, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer out.Close()
	buf, zero := make([]byte, mib), make([]byte, mib)
	for at := int64(p.Start) * sectorSize; ; {
		n, err := io.ReadFull(in, buf)
		if n > 0 && !bytes.Equal(buf[:n], zero[:n]) {
			if _, err := out.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		at += int64(n)
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return out.Close()
		}
		if err != nil {
			return err
		}
	}
}
