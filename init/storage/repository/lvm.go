package repository

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"cairn/init/hostd/client"
	"cairn/init/storage/lvm"
	"cairn/init/storage/media"
	"cairn/init/storage/qemuimg"
	"cairn/init/storage/tool"
)

// lvmDriver keeps volumes in a volume group on a disk of its own, whose name
// tells whose it is.
type lvmDriver struct{ m *Manager }

// groupPrefix is not XenServer's: what that keeps in its groups is not qcow2.
const groupPrefix = "cairn-sr-"

func (d lvmDriver) check(config map[string]string) error {
	if err := onlyKeys(config, "device"); err != nil {
		return err
	}
	return wholeDevice(config["device"])
}

func isLVM(s media.Signature) bool { return s.Type == "LVM2_member" }

func (d lvmDriver) probe(ctx context.Context, config map[string]string) ([]client.Repository, error) {
	if err := d.configure(); err != nil {
		return nil, err
	}
	return d.m.probeDisks(ctx, config, func(ctx context.Context, disk media.Disk, found []media.Signature) string {
		if len(found) != 1 || !isLVM(found[0]) {
			return ""
		}
		owner, err := d.owner(ctx, disk)
		sr, ours := strings.CutPrefix(owner, groupPrefix)
		if err != nil || !ours || checkUUID(sr) != nil {
			return ""
		}
		return sr
	})
}

// configure writes LVM's configuration, which is where no image's is: in memory.
func (d lvmDriver) configure() error {
	if err := os.MkdirAll(filepath.Join(d.m.cfg.LVMDir, "lock"), 0o700); err != nil {
		return err
	}
	path := filepath.Join(d.m.cfg.LVMDir, "lvm.conf")
	text := lvm.Conf(d.m.cfg.LVMDir)
	if old, err := os.ReadFile(path); err == nil && string(old) == text {
		return nil
	}
	return replace(path, []byte(text))
}

func (d lvmDriver) owner(ctx context.Context, disk media.Disk) (string, error) {
	out, err := d.m.cfg.Tools.Run(ctx, lvm.Group{Dir: d.m.cfg.LVMDir, Device: disk.Path}.Owner())
	if err != nil {
		return "", err
	}
	return lvm.ParseOwner(out)
}

// group finds the disk. ours says that the repository's group is on it, half that
// only LVM's mark is, as after a format that was cut off.
func (d lvmDriver) group(ctx context.Context, sr string, config map[string]string) (g lvm.Group, ours, half bool, err error) {
	if err := d.configure(); err != nil {
		return g, false, false, err
	}
	disk, err := d.m.cfg.Media.Disk(config["device"])
	if err != nil {
		return g, false, false, err
	}
	g = lvm.Group{Dir: d.m.cfg.LVMDir, Nodes: d.m.cfg.Media.Dev, Device: disk.Path, Name: groupPrefix + sr}
	found, err := d.m.cfg.Media.Found(ctx, disk, isLVM)
	if err != nil {
		return g, false, false, err
	}
	if strange := withoutHolders(found); len(strange) > 0 {
		return g, false, false, inUse(disk.Path, strange)
	}
	owner := ""
	signatures, err := d.m.cfg.Media.Signatures(ctx, disk)
	if err == nil && len(signatures) > 0 {
		owner, err = d.owner(ctx, disk)
	}
	switch ours = owner == g.Name; {
	case err != nil:
		return g, false, false, err
	case owner != "" && !ours:
		return g, false, false, inUse(disk.Path, []string{"volume group " + owner})
	case len(found) > 0 && !ours:
		return g, false, false, inUse(disk.Path, found)
	}
	return g, ours, len(signatures) > 0 && !ours, nil
}

// withoutHolders leaves out what may be the group's own volumes.
func withoutHolders(found []string) []string {
	var out []string
	for _, f := range found {
		if !strings.HasSuffix(f, " on top of it") {
			out = append(out, f)
		}
	}
	return out
}

func (d lvmDriver) format(ctx context.Context, sr string, config map[string]string) error {
	g, ours, half, err := d.group(ctx, sr, config)
	if err != nil || ours {
		return err
	}
	steps := g.Make()
	if half {
		steps = steps[1:]
	}
	return d.m.run(ctx, steps...)
}

func (d lvmDriver) erase(ctx context.Context, sr string, config map[string]string) error {
	g, ours, _, err := d.group(ctx, sr, config)
	if err != nil || !ours {
		return err
	}
	return d.m.run(ctx, g.Remove()...)
}

func (m *Manager) run(ctx context.Context, steps ...tool.Command) error {
	for _, c := range steps {
		if _, err := m.cfg.Tools.Run(ctx, c); err != nil {
			return err
		}
	}
	return nil
}

func (d lvmDriver) attach(ctx context.Context, sr string, config map[string]string) (store, string, error) {
	g, ours, _, err := d.group(ctx, sr, config)
	if err != nil {
		return nil, "", err
	}
	if !ours {
		return nil, "", Fail(client.CodeNotFound, "%s is not a repository", g.Device)
	}
	bed := &group{m: d.m, sr: sr, Group: g}
	return images{bed, d.m}, "", bed.sweep(ctx)
}

// group is a bed of logical volumes.
type group struct {
	lvm.Group
	m  *Manager
	sr string

	// turn is held while volumes become active or cease to be, so that nobody takes
	// away what another has just found active.
	turn  sync.Mutex
	mu    sync.Mutex
	users map[string]int // of volumes opened for qemu-img
}

func (g *group) path() string { return filepath.Join(g.Nodes, g.Name) }

func (g *group) space(ctx context.Context) (space, error) {
	out, err := g.m.cfg.Tools.Run(ctx, g.Space())
	if err != nil {
		return space{}, err
	}
	total, free, err := lvm.ParseSpace(out)
	return space{total, total - free, free}, err
}

// volumes are all of the group that are ours, drafts included.
func (g *group) volumes(ctx context.Context) (map[string]lvm.Volume, error) {
	out, err := g.m.cfg.Tools.Run(ctx, g.Group.Volumes())
	if err != nil {
		return nil, err
	}
	list, err := lvm.ParseVolumes(out)
	all := map[string]lvm.Volume{}
	for _, v := range list {
		all[v.Name] = v
	}
	return all, err
}

func (g *group) list(ctx context.Context) ([]client.Volume, error) {
	all, err := g.volumes(ctx)
	if err != nil {
		return nil, err
	}
	var out []client.Volume
	for _, lv := range all {
		if v, draft := g.describe(lv); !draft {
			out = append(out, v)
		}
	}
	return out, nil
}

// describe tells a volume by its tags; one that has none of ours is shown with a
// problem, so that nobody wonders where the space is.
func (g *group) describe(lv lvm.Volume) (v client.Volume, draft bool) {
	v = client.Volume{Name: lv.Name, Path: g.Path(lv.Name), Block: true, Used: lv.Size}
	meta, err := lvm.ParseTags(lv.Tags)
	if err != nil {
		v.Problem = err.Error()
	}
	v.Format, v.VirtualSize, v.Backing, v.Note = client.Format(meta.Format), meta.Size, meta.Backing, meta.Note
	if meta.Backing != "" && checkName(meta.Backing) != nil {
		v.Problem = "its backing is no volume of the repository"
	}
	return v, meta.Draft
}

func (g *group) find(ctx context.Context, name string) (lvm.Volume, error) {
	all, err := g.volumes(ctx)
	if err != nil {
		return lvm.Volume{}, err
	}
	lv, ok := all[name]
	if !ok {
		return lv, Fail(client.CodeNotFound, "volume %s is not in repository %s", name, g.sr)
	}
	return lv, nil
}

func (g *group) volume(ctx context.Context, name string) (client.Volume, error) {
	lv, err := g.find(ctx, name)
	if err != nil {
		return client.Volume{}, err
	}
	v, draft := g.describe(lv)
	if draft {
		return client.Volume{}, Fail(client.CodeNotFound, "volume %s is not in repository %s", name, g.sr)
	}
	return v, nil
}

// reference is relative: all nodes of a group are in one directory.
func (g *group) reference(v client.Volume) string { return v.Name }

func (g *group) remove(ctx context.Context, v client.Volume) error {
	return g.m.run(ctx, g.Group.Activate(v.Name, false), g.Delete(v.Name))
}

// retag changes what the tags say.
func (g *group) retag(ctx context.Context, name string, change func(*lvm.Meta)) error {
	lv, err := g.find(ctx, name)
	if err != nil {
		return err
	}
	meta, err := lvm.ParseTags(lv.Tags)
	if err != nil {
		return err
	}
	change(&meta)
	if c := g.Retag(name, lv.Tags, meta.Tags()); c != nil {
		return g.m.run(ctx, *c)
	}
	return nil
}

func (g *group) note(ctx context.Context, v client.Volume, note string) error {
	return g.retag(ctx, v.Name, func(m *lvm.Meta) { m.Note = note })
}

func (g *group) changed(ctx context.Context, v client.Volume, size int64, backing string) error {
	return g.retag(ctx, v.Name, func(m *lvm.Meta) { m.Size, m.Backing = size, backing })
}

// grow makes the volume as large as it can get, unless it is that already.
func (g *group) grow(ctx context.Context, v client.Volume, size int64) error {
	need := qemuimg.FullSize(v.Format, size)
	if v.Used >= need {
		return nil
	}
	if err := g.room(ctx, v.Name, need-v.Used); err != nil {
		return err
	}
	return g.m.run(ctx, g.Extend(v.Name, need))
}

func (g *group) room(ctx context.Context, name string, need int64) error {
	s, err := g.space(ctx)
	if err != nil {
		return err
	}
	if (need+lvm.Extent-1)/lvm.Extent*lvm.Extent > s.free {
		return Fail(client.CodeNoSpace, "volume %s takes %d bytes more, and %d are free", name, need, s.free)
	}
	return nil
}

// sweep removes drafts of an earlier hostd.
func (g *group) sweep(ctx context.Context) error {
	all, err := g.volumes(ctx)
	if err != nil {
		return err
	}
	for _, lv := range all {
		if _, draft := g.describe(lv); !draft {
			continue
		}
		g.m.cfg.Log.Warn("half-made-removed", "sr", g.sr, "volume", lv.Name)
		if err := g.remove(ctx, client.Volume{Name: lv.Name}); err != nil {
			return err
		}
	}
	return nil
}

// detach deactivates all volumes, which fails while somebody has one open.
func (g *group) detach(ctx context.Context) error {
	all, err := g.volumes(ctx)
	for _, lv := range all {
		if lv.Active {
			err = errors.Join(err, g.off(ctx, lv))
		}
	}
	if rerr := os.Remove(g.path()); rerr != nil && !errors.Is(rerr, fs.ErrNotExist) {
		g.m.cfg.Log.Debug("directory-stays", "path", g.path(), "err", rerr)
	}
	return err
}

func (g *group) off(ctx context.Context, lv lvm.Volume) error {
	if lv.Open {
		return Fail(client.CodeInUse, "volume %s is open", lv.Name)
	}
	return g.m.run(ctx, g.Group.Activate(lv.Name, false))
}
