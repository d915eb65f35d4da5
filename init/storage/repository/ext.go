package repository

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"cairn/init/hostd/client"
	"cairn/init/storage"
	"cairn/init/storage/media"
	"cairn/init/storage/tool"
)

// extDriver keeps volumes in an ext4 file system on a disk of its own. The file
// system's UUID is the repository's and its label ours: together its signature.
type extDriver struct{ m *Manager }

const (
	extLabel = "cairn-sr"
	// mkfsLimit and fsckLimit are for disks that hardly answer: mkfs leaves most
	// of its work to the kernel, and fsck reads a large file system's tables.
	mkfsLimit = 15 * time.Minute
	fsckLimit = 2 * time.Hour
)

func (d extDriver) check(config map[string]string) error {
	if err := onlyKeys(config, "device"); err != nil {
		return err
	}
	return wholeDevice(config["device"])
}

// wholeDevice refuses lists by name: users of XenServer know them as stripes.
func wholeDevice(path string) error {
	switch {
	case path == "":
		return Fail(client.CodeBadRequest, "device-config needs device")
	case strings.Contains(path, ","):
		return Fail(client.CodeUnsupported, "device %s: several disks in one repository are not supported", path)
	}
	return nil
}

func isExt(sr string) func(media.Signature) bool {
	return func(s media.Signature) bool { return s.Type == "ext4" && s.Label == extLabel && s.UUID == sr }
}

// probe tells repositories by their signatures, and offers disks without any.
func (d extDriver) probe(ctx context.Context, config map[string]string) ([]client.Repository, error) {
	return d.m.probeDisks(ctx, config, func(_ context.Context, _ media.Disk, found []media.Signature) string {
		if len(found) == 1 && isExt(found[0].UUID)(found[0]) {
			return found[0].UUID
		}
		return ""
	})
}

func (d extDriver) format(ctx context.Context, sr string, config map[string]string) error {
	// An earlier format may have been cut off between mount and unmount.
	if err := d.m.unmount(d.target(sr)); err != nil {
		return err
	}
	disk, ours, err := d.disk(ctx, sr, config)
	if err != nil {
		return err
	}
	if !ours {
		_, err := d.m.cfg.Tools.Run(ctx, tool.Command{Name: "mke2fs", Limit: mkfsLimit, Args: []string{
			// -m 0: the reserve is for root's daemons, of which none writes here.
			"-q", "-F", "-t", "ext4", "-m", "0", "-i", "65536", "-U", sr, "-L", extLabel, disk.Path,
		}})
		if err != nil {
			return err
		}
	}
	// The mark is made here and not on attach, so that attach never writes to a
	// file system that was not finished.
	target := d.target(sr)
	if err := d.mount(disk, target); err != nil {
		return err
	}
	err = errors.Join(os.Chmod(target, directoryMode), putMark(target, sr))
	return errors.Join(err, d.m.cfg.Mounter.Unmount(target))
}

// disk finds the disk and whether it carries the repository; anything else on it is
// an error.
func (d extDriver) disk(ctx context.Context, sr string, config map[string]string) (media.Disk, bool, error) {
	return d.m.disk(ctx, config["device"], isExt(sr))
}

// disk looks at a disk that is to be used: only the caller's own signature may be
// there, and nobody may use it but mounts below MountDir.
func (m *Manager) disk(ctx context.Context, path string, own func(media.Signature) bool) (media.Disk, bool, error) {
	disk, err := m.cfg.Media.Disk(path)
	if err != nil {
		return disk, false, err
	}
	found, err := m.cfg.Media.Found(ctx, disk, own)
	if err != nil {
		return disk, false, err
	}
	if len(found) > 0 {
		return disk, false, inUse(path, found)
	}
	signatures, err := m.cfg.Media.Signatures(ctx, disk)
	return disk, len(signatures) > 0, err
}

func (d extDriver) target(sr string) string { return filepath.Join(d.m.cfg.MountDir, sr) }

func (d extDriver) mount(disk media.Disk, target string) error {
	if err := d.m.cfg.Mounter.MkdirAll(target, directoryMode); err != nil {
		return err
	}
	err := d.m.cfg.Mounter.Prepare("ext4")
	options := []storage.Option{storage.NoAtime, storage.NoSuid, storage.NoDev, storage.NoExec}
	if merr := d.m.cfg.Mounter.Mount(disk.Path, target, "ext4", options); merr != nil {
		return fmt.Errorf("mount %s: %w", disk.Path, errors.Join(merr, err))
	}
	return nil
}

func (d extDriver) erase(ctx context.Context, sr string, config map[string]string) error {
	disk, ours, err := d.disk(ctx, sr, config)
	if err != nil || !ours {
		return err
	}
	return d.m.cfg.Media.Wipe(ctx, disk, "ext4")
}

func (d extDriver) attach(ctx context.Context, sr string, config map[string]string) (store, string, error) {
	target := d.target(sr)
	bed := &directory{m: d.m, sr: sr, dir: target, unhook: func() error { return d.m.unmount(target) }}
	source, err := d.m.cfg.Mounter.Mounted(target)
	if err != nil {
		return nil, "", err
	}
	problem := ""
	if source == "" {
		if problem, err = d.bring(ctx, sr, config); err != nil {
			return nil, "", err
		}
	}
	if err := expectMark(target, sr); err != nil {
		return nil, "", errors.Join(err, bed.detach(ctx))
	}
	return images{bed, d.m}, problem, bed.sweep()
}

// bring checks the file system and mounts it.
func (d extDriver) bring(ctx context.Context, sr string, config map[string]string) (problem string, err error) {
	disk, ours, err := d.disk(ctx, sr, config)
	if err != nil {
		return "", err
	}
	if !ours {
		return "", Fail(client.CodeNotFound, "%s is not a repository", disk.Path)
	}
	if problem, err = d.repair(ctx, disk); err != nil {
		return "", err
	}
	return problem, d.mount(disk, d.target(sr))
}

// From e2fsck(8): what it mended, alone or together, is no failure.
const fsckMended = 1 | 2

// repair mends what is safe to mend without asking.
func (d extDriver) repair(ctx context.Context, disk media.Disk) (problem string, err error) {
	_, err = d.m.cfg.Tools.Run(ctx, tool.Command{Name: "e2fsck", Args: []string{"-p", disk.Path}, Limit: fsckLimit})
	code, failed := tool.Code(err)
	switch {
	case err == nil:
		return "", nil
	case failed && code > 0 && code&^fsckMended == 0:
		return "its file system was damaged and has been mended", nil
	case failed:
		return "", Fail(client.CodeDamaged, "file system on %s: %v", disk.Path, err)
	}
	return "", err
}

func (m *Manager) unmount(target string) error {
	source, err := m.cfg.Mounter.Mounted(target)
	if err != nil || source == "" {
		return err
	}
	if err := m.cfg.Mounter.Unmount(target); err != nil {
		return fmt.Errorf("unmount %s: %w", target, err)
	}
	_ = os.Remove(target) // an empty directory harms nobody
	return nil
}

// probeDisks looks at one disk or at all. whose tells the repository by what a
// disk holds; one that holds nothing is offered without a UUID.
func (m *Manager) probeDisks(ctx context.Context, config map[string]string, whose func(context.Context, media.Disk, []media.Signature) string) ([]client.Repository, error) {
	if err := onlyKeys(config, "device"); err != nil {
		return nil, err
	}
	disks, err := m.candidates(config["device"])
	if err != nil {
		return nil, err
	}
	var out []client.Repository
	for _, disk := range disks {
		found, err := m.cfg.Media.Signatures(ctx, disk)
		if err != nil {
			m.cfg.Log.Warn("disk-unreadable", "dev", disk.Path, "err", err)
			continue
		}
		r := client.Repository{UUID: whose(ctx, disk, found), Config: map[string]string{"device": disk.Path}, Total: disk.Size}
		if r.UUID == "" && (len(found) > 0 || len(m.cfg.Media.Users(disk)) > 0) {
			continue
		}
		out = append(out, r)
	}
	return out, nil
}

func (m *Manager) candidates(device string) ([]media.Disk, error) {
	if device == "" {
		return m.cfg.Media.Disks(), nil
	}
	if err := wholeDevice(device); err != nil {
		return nil, err
	}
	d, err := m.cfg.Media.Disk(device)
	return []media.Disk{d}, err
}
