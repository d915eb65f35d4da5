package boot

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"cairn/init/boot/gpt"
	"cairn/init/dm"
	"cairn/init/slots"
)

// sysDisks finds disks in sysfs. Only disks on which the kernel already found
// a partition named like a slot's are read at all: reading every disk would
// wait for each dead path of a SAN.
type sysDisks struct {
	sys, dev string // "/sys" and "/dev"
}

// Scan implements Disks.
func (s sysDisks) Scan() ([]Disk, []error) {
	entries, err := os.ReadDir(s.class(""))
	if err != nil {
		return nil, []error{fmt.Errorf("disks: %w", err)}
	}
	byDisk := map[string][]kernelPartition{}
	var order []string
	for _, e := range entries {
		p, ok := s.partition(e.Name())
		if !ok {
			continue
		}
		if byDisk[p.disk] == nil {
			order = append(order, p.disk)
		}
		byDisk[p.disk] = append(byDisk[p.disk], p)
	}
	var disks []Disk
	var errs []error
	for _, name := range order {
		if !ofSlot(byDisk[name]) {
			continue
		}
		disk, err := s.read(name, byDisk[name])
		if err != nil {
			errs = append(errs, fmt.Errorf("disk %s: %w", name, err))
			continue
		}
		disks = append(disks, disk)
	}
	return disks, errs
}

// Superblock implements Disks.
func (s sysDisks) Superblock(p Partition) ([]byte, error) {
	f, err := os.Open(p.Node)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	head := make([]byte, dm.SuperblockSize)
	if _, err := f.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("superblock of %s: %w", p.Node, err)
	}
	return head, nil
}

// kernelPartition is a partition as sysfs shows it.
type kernelPartition struct {
	disk   string
	number int
	name   string
	dev    string
	node   string
	size   uint64
}

func ofSlot(parts []kernelPartition) bool {
	for _, p := range parts {
		if _, ok := slots.OfName(p.name); ok {
			return true
		}
	}
	return false
}

func (s sysDisks) class(name string) string { return filepath.Join(s.sys, "class/block", name) }

// partition reads what sysfs tells about a block device, if it is a partition.
func (s sysDisks) partition(name string) (kernelPartition, bool) {
	number, err := s.number(name, "partition")
	if err != nil {
		return kernelPartition{}, false
	}
	// The link ends in …/block/vda/vda1.
	link, err := os.Readlink(s.class(name))
	if err != nil {
		return kernelPartition{}, false
	}
	size, err := s.number(name, "size")
	if err != nil {
		return kernelPartition{}, false
	}
	vars, err := s.uevent(name)
	if err != nil {
		return kernelPartition{}, false
	}
	return kernelPartition{
		disk: filepath.Base(filepath.Dir(link)), number: int(number), name: vars["PARTNAME"],
		dev: vars["MAJOR"] + ":" + vars["MINOR"], node: filepath.Join(s.dev, vars["DEVNAME"]), size: size * 512,
	}, true
}

func (s sysDisks) number(name, file string) (uint64, error) {
	text, err := os.ReadFile(filepath.Join(s.class(name), file))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(strings.TrimSpace(string(text)), 10, 54)
}

// uevent reads the variables of a device; the file has one per line.
func (s sysDisks) uevent(name string) (map[string]string, error) {
	f, err := os.Open(filepath.Join(s.class(name), "uevent"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	vars := map[string]string{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if key, value, ok := strings.Cut(lines.Text(), "="); ok {
			vars[key] = value
		}
	}
	return vars, nil
}

// read joins the disk's partition table, which holds the GUIDs, with what the
// kernel made of it, which holds the device numbers.
func (s sysDisks) read(name string, parts []kernelPartition) (Disk, error) {
	sectors, err := s.number(name, "size")
	if err != nil {
		return Disk{}, err
	}
	sectorSize, err := s.number(name, "queue/logical_block_size")
	if err != nil {
		return Disk{}, err
	}
	vars, err := s.uevent(name)
	if err != nil {
		return Disk{}, err
	}
	f, err := os.Open(filepath.Join(s.dev, vars["DEVNAME"]))
	if err != nil {
		return Disk{}, err
	}
	defer f.Close()
	return join(name, f, sectors*512, sectorSize, parts)
}

func join(name string, r io.ReaderAt, size, sectorSize uint64, parts []kernelPartition) (Disk, error) {
	table, err := gpt.Read(r, size, sectorSize)
	if err != nil {
		return Disk{}, err
	}
	disk := Disk{Name: name, GUID: table.DiskGUID}
	for _, k := range parts {
		for _, p := range table.Partitions {
			if p.Number == k.number && p.Size == k.size {
				disk.Partitions = append(disk.Partitions, Partition{
					Partition: slots.Partition{Name: p.Name, UUID: p.UUID}, Dev: k.dev, Node: k.node, Size: k.size,
				})
			}
		}
	}
	if len(disk.Partitions) == 0 {
		return Disk{}, errors.New("the kernel's partitions are not those of the table")
	}
	return disk, nil
}
