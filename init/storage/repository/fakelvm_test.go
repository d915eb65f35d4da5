package repository

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"cairn/init/storage/media"
	"cairn/init/storage/tool"
)

// lvm keeps volume groups; an active volume is a file below dev.
func (f *machine) lvm(c tool.Command) ([]byte, error) {
	device, last := option(c.Args, "--devices"), c.Args[len(c.Args)-1]
	g := f.groups[device]
	switch c.Args[0] {
	case "pvcreate":
		f.signatures[device] = []media.Signature{{Type: "LVM2_member"}}
		return nil, nil
	case "vgcreate":
		f.groups[device] = &fakeGroup{name: c.Args[len(c.Args)-2], size: 10<<30 - 4<<20, volumes: map[string]*fakeVolume{}}
		return nil, os.MkdirAll(f.nodes(device), 0o755)
	case "vgremove":
		delete(f.groups, device)
		return nil, nil
	case "pvremove":
		delete(f.signatures, device)
		return nil, nil
	case "pvs":
		name := ""
		if g != nil {
			name = g.name
		}
		return report("pv", []map[string]string{{"vg_name": name}})
	}
	if g == nil {
		return nil, failure("lvm", 5, "Volume group not found")
	}
	_, volume, _ := strings.Cut(last, "/")
	switch c.Args[0] {
	case "vgs":
		return report("vg", []map[string]string{{"vg_size": strconv.FormatInt(g.size, 10), "vg_free": strconv.FormatInt(g.size-g.used(), 10)}})
	case "lvs":
		return report("lv", g.rows())
	case "lvcreate":
		return nil, f.makeVolume(device, c.Args)
	}
	v := g.volumes[volume]
	if v == nil {
		return nil, failure("lvm", 5, "Failed to find logical volume \""+last+"\"")
	}
	switch c.Args[0] {
	case "lvremove":
		delete(g.volumes, volume)
	case "lvextend":
		v.size = extents(option(c.Args, "--size"))
		return nil, f.node(device, volume, v)
	case "lvchange":
		v.retag(c.Args)
		if a := option(c.Args, "--activate"); a != "" {
			v.active = a == "y"
			return nil, f.node(device, volume, v)
		}
	}
	return nil, nil
}

func (f *machine) nodes(device string) string {
	return filepath.Join(f.dir, "dev", f.groups[device].name)
}

// node shows a volume while it is active; its bytes are kept beside it otherwise.
func (f *machine) node(device, volume string, v *fakeVolume) error {
	path := filepath.Join(f.nodes(device), volume)
	hidden := path + "~"
	if !v.active {
		err := os.Rename(path, hidden)
		if os.IsNotExist(err) {
			return nil
		}
		return err
	}
	if _, err := os.Stat(path); err != nil {
		if err := os.Rename(hidden, path); err != nil {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				return err
			}
		}
	}
	return os.Truncate(path, v.size)
}

func (v *fakeVolume) retag(args []string) {
	for i, a := range args {
		switch a {
		case "--deltag":
			v.tags = slices.DeleteFunc(v.tags, func(t string) bool { return t == args[i+1] })
		case "--addtag":
			v.tags = append(v.tags, args[i+1])
		}
	}
}

func (f *machine) makeVolume(device string, args []string) error {
	g := f.groups[device]
	v := &fakeVolume{size: extents(option(args, "--size"))}
	v.retag(args)
	v.active = option(args, "--activate") == "y"
	if v.size > g.size-g.used() {
		return failure("lvm", 5, "insufficient free space")
	}
	g.volumes[option(args, "--name")] = v
	return f.node(device, option(args, "--name"), v)
}

func extents(size string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSuffix(size, "b"), 10, 64)
	return (n + 4<<20 - 1) / (4 << 20) * (4 << 20)
}

func (g *fakeGroup) used() (n int64) {
	for _, v := range g.volumes {
		n += v.size
	}
	return n
}

func (g *fakeGroup) rows() []map[string]string {
	out := []map[string]string{}
	for name, v := range g.volumes {
		active := ""
		if v.active {
			active = "active"
		}
		out = append(out, map[string]string{
			"lv_name": name, "lv_size": strconv.FormatInt(v.size, 10), "lv_active": active, "lv_device_open": "", "lv_tags": strings.Join(v.tags, ","),
		})
	}
	return out
}

func report(kind string, rows []map[string]string) ([]byte, error) {
	return json.Marshal(map[string]any{"report": []any{map[string]any{kind: rows}}})
}
