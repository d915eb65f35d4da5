package template

import (
	"encoding/xml"
	"fmt"
	"io"
	"strconv"
	"strings"

	"cairn/toolstack/api"
)

// Disk is one disk that VM.provision makes.
type Disk struct {
	Device   string // userdevice of its VBD
	Size     int64
	SR       string // uuid; "" is the pool's default
	Bootable bool
	Type     api.VDIType
}

// Disks is the value of other_config:disks. Its text is XML that clients edit, so
// what comes back is checked.
type Disks []Disk

// Bounds of what a description may hold.
const (
	maxText = 64 << 10
	maxDisk = 64 * tib
)

type provisionXML struct {
	XMLName xml.Name  `xml:"provision"`
	Disks   []diskXML `xml:"disk"`
}

type diskXML struct {
	Device   string `xml:"device,attr"`
	Size     string `xml:"size,attr"`
	SR       string `xml:"sr,attr"`
	Bootable string `xml:"bootable,attr"`
	Type     string `xml:"type,attr"`
}

// String is the text of a list of disks.
func (d Disks) String() string {
	p := provisionXML{}
	for _, disk := range d {
		p.Disks = append(p.Disks, diskXML{
			Device: disk.Device, Size: strconv.FormatInt(disk.Size, 10), SR: disk.SR,
			Bootable: strconv.FormatBool(disk.Bootable), Type: string(disk.Type),
		})
	}
	text, err := xml.Marshal(p)
	if err != nil {
		panic(err) // strings alone
	}
	return string(text)
}

// ParseDisks reads other_config:disks; no text is no disks.
func ParseDisks(text string) (Disks, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	if len(text) > maxText {
		return nil, fmt.Errorf("disks: %d bytes of text", len(text))
	}
	var p provisionXML
	d := xml.NewDecoder(strings.NewReader(text))
	if err := d.Decode(&p); err != nil {
		return nil, fmt.Errorf("disks: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, fmt.Errorf("disks: text after the end")
	}
	var disks Disks
	taken := map[string]bool{}
	for _, x := range p.Disks {
		disk, err := x.disk()
		if err != nil {
			return nil, err
		}
		if taken[disk.Device] {
			return nil, fmt.Errorf("disks: device %s is there twice", disk.Device)
		}
		taken[disk.Device] = true
		disks = append(disks, disk)
	}
	return disks, nil
}

func (x diskXML) disk() (Disk, error) {
	d := Disk{Device: x.Device, SR: x.SR, Type: api.VDIType(x.Type)}
	n, err := strconv.ParseUint(x.Device, 10, 8)
	if err != nil || n >= maxDisks || strconv.FormatUint(n, 10) != x.Device {
		return d, fmt.Errorf("disks: device %q is not a number below %d", x.Device, maxDisks)
	}
	if d.Size, err = strconv.ParseInt(x.Size, 10, 64); err != nil || d.Size <= 0 || d.Size > maxDisk {
		return d, fmt.Errorf("disks: size %q of device %s is not from 1 to %d", x.Size, x.Device, int64(maxDisk))
	}
	if x.Bootable != "" {
		if d.Bootable, err = strconv.ParseBool(x.Bootable); err != nil {
			return d, fmt.Errorf("disks: bootable %q of device %s is neither true nor false", x.Bootable, x.Device)
		}
	}
	switch d.Type {
	case "":
		d.Type = api.VDITypeUser
	case api.VDITypeSystem, api.VDITypeUser, api.VDITypeEphemeral:
	default:
		return d, fmt.Errorf("disks: type %q of device %s is unknown", x.Type, x.Device)
	}
	return d, nil
}
