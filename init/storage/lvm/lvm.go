// Package lvm drives LVM for repositories: what to ask the lvm program for and how
// to read its reports.
//
// Every command is shown one disk and no other (--devices), reads a configuration
// of its own, and needs neither udev nor a daemon: LVM makes the device nodes.
// Volume groups made here are never activated by anybody else, since each logical
// volume is marked so. What a repository knows of a volume is kept in its tags, so
// that a list need not activate anything.
//
// Everything here is pure and may be used from many goroutines; LVM itself locks
// a volume group between commands.
package lvm

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"cairn/init/storage/tool"
)

// Program is what a Runner calls it.
const Program = "lvm"

// Extent is the unit of space: 4 MiB, LVM's own default.
const Extent = 4 << 20

// limit is for a disk that hardly answers.
const limit = 5 * time.Minute

// Conf is the configuration, which Dir holds as lvm.conf.
func Conf(dir string) string {
	return `devices { dir = "/dev" scan = [ "/dev" ] use_devicesfile = 0 obtain_device_list_from_udev = 0 external_device_info_source = "none" hints = "none" }
global { use_lvmpolld = 0 use_lvmlockd = 0 locking_dir = "` + filepath.Join(dir, "lock") + `" event_activation = 0 notify_dbus = 0 }
activation { udev_sync = 0 udev_rules = 0 monitoring = 0 }
backup { backup = 0 archive = 0 }
log { syslog = 0 }
`
}

// Group is a volume group on one disk.
type Group struct {
	Dir    string // of the configuration
	Nodes  string // of device nodes, normally /dev
	Device string
	Name   string
}

func (g Group) command(verb string, args ...string) tool.Command {
	all := append([]string{verb, "--devices", g.Device}, args...)
	return tool.Command{Name: Program, Args: all, Env: []string{"LVM_SYSTEM_DIR=" + g.Dir, "LVM_SUPPRESS_FD_WARNINGS=1"}, Limit: limit}
}

// Path is the node of a logical volume while it is active.
func (g Group) Path(volume string) string { return filepath.Join(g.Nodes, g.Name, volume) }

// Make makes the group on a blank disk, in two commands.
func (g Group) Make() []tool.Command {
	return []tool.Command{
		g.command("pvcreate", "--yes", g.Device),
		g.command("vgcreate", "--yes", "--setautoactivation", "n", "--physicalextentsize", "4m", g.Name, g.Device),
	}
}

// Remove removes the group with all its volumes, and then its mark on the disk.
func (g Group) Remove() []tool.Command {
	return []tool.Command{
		g.command("vgremove", "--yes", "--force", g.Name),
		g.command("pvremove", "--yes", g.Device),
	}
}

// Create makes a volume, which is active then.
func (g Group) Create(volume string, size int64, tags []string) tool.Command {
	args := []string{"--yes", "--name", volume, "--size", bytes(size), "--wipesignatures", "n", "--zero", "n", "--setautoactivation", "n", "--activate", "y"}
	for _, t := range tags {
		args = append(args, "--addtag", t)
	}
	return g.command("lvcreate", append(args, g.Name)...)
}

// Delete removes an inactive volume.
func (g Group) Delete(volume string) tool.Command {
	return g.command("lvremove", "--yes", g.Name+"/"+volume)
}

// Extend makes a volume larger, active or not.
func (g Group) Extend(volume string, size int64) tool.Command {
	return g.command("lvextend", "--yes", "--size", bytes(size), g.Name+"/"+volume)
}

// Activate makes a volume's node, or removes it.
func (g Group) Activate(volume string, active bool) tool.Command {
	flag := "n"
	if active {
		flag = "y"
	}
	return g.command("lvchange", "--yes", "--activate", flag, g.Name+"/"+volume)
}

// Retag replaces tags in one write of the group's metadata; nil if nothing changes.
func (g Group) Retag(volume string, old, tags []string) *tool.Command {
	var args []string
	for _, t := range old {
		if !contains(tags, t) {
			args = append(args, "--deltag", t)
		}
	}
	for _, t := range tags {
		if !contains(old, t) {
			args = append(args, "--addtag", t)
		}
	}
	if len(args) == 0 {
		return nil
	}
	c := g.command("lvchange", append(args, g.Name+"/"+volume)...)
	return &c
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// report is the common part of commands that list.
func (g Group) report(verb, fields string, args ...string) tool.Command {
	all := append([]string{"--reportformat", "json", "--units", "b", "--nosuffix", "--options", fields}, args...)
	return g.command(verb, all...)
}

// Owner asks which group a disk belongs to.
func (g Group) Owner() tool.Command { return g.report("pvs", "vg_name", g.Device) }

// Space asks for the size and the free space of the group.
func (g Group) Space() tool.Command { return g.report("vgs", "vg_size,vg_free", g.Name) }

// Volumes asks for all volumes of the group.
func (g Group) Volumes() tool.Command {
	return g.report("lvs", "lv_name,lv_size,lv_active,lv_device_open,lv_tags", g.Name)
}

// Volume is a logical volume.
type Volume struct {
	Name         string
	Size         int64
	Active, Open bool
	Tags         []string
}

type rows[T any] struct {
	Report []struct {
		PV []T `json:"pv"`
		VG []T `json:"vg"`
		LV []T `json:"lv"`
	} `json:"report"`
}

func parse[T any](out []byte) ([]T, error) {
	var r rows[T]
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, fmt.Errorf("report of lvm: %w", err)
	}
	var all []T
	for _, part := range r.Report {
		all = append(append(append(all, part.PV...), part.VG...), part.LV...)
	}
	return all, nil
}

// ParseOwner reads the answer of Owner; empty means that the disk is in no group.
func ParseOwner(out []byte) (string, error) {
	all, err := parse[struct {
		Name string `json:"vg_name"`
	}](out)
	if err != nil || len(all) == 0 {
		return "", err
	}
	return all[0].Name, nil
}

// ParseSpace reads the answer of Space.
func ParseSpace(out []byte) (size, free int64, err error) {
	all, err := parse[struct {
		Size string `json:"vg_size"`
		Free string `json:"vg_free"`
	}](out)
	if err != nil {
		return 0, 0, err
	}
	if len(all) != 1 {
		return 0, 0, fmt.Errorf("report of lvm: %d groups, want one", len(all))
	}
	if size, err = number(all[0].Size); err != nil {
		return 0, 0, err
	}
	free, err = number(all[0].Free)
	return size, free, err
}

// ParseVolumes reads the answer of Volumes.
func ParseVolumes(out []byte) ([]Volume, error) {
	all, err := parse[struct {
		Name   string `json:"lv_name"`
		Size   string `json:"lv_size"`
		Active string `json:"lv_active"`
		Open   string `json:"lv_device_open"`
		Tags   string `json:"lv_tags"`
	}](out)
	if err != nil {
		return nil, err
	}
	var volumes []Volume
	for _, r := range all {
		size, err := number(r.Size)
		if err != nil {
			return nil, err
		}
		v := Volume{Name: r.Name, Size: size, Active: r.Active == "active", Open: r.Open == "open"}
		if r.Tags != "" {
			v.Tags = strings.Split(r.Tags, ",")
		}
		volumes = append(volumes, v)
	}
	return volumes, nil
}

func number(s string) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, fmt.Errorf("report of lvm: %q is not a size", s)
	}
	return n, nil
}

func bytes(n int64) string { return strconv.FormatInt(n, 10) + "b" }
