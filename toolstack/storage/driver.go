package storage

import (
	"context"
	"maps"
	"path"
	"slices"
	"strings"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// driver is a type of repository, as its SM row shows it.
type driver struct {
	kind, name, description string
	// needs is the key of device_config without which nothing can be done, and the
	// error for one that is missing.
	needs   string
	missing *api.Error
	// config are the keys of device_config.
	config map[string]string
	// found repositories hold what others made: they are not formatted or erased.
	found bool
	// blocks are devices: what a VM does to them cannot be taken back.
	blocks bool
	// local to one host, whatever a client says.
	local    bool
	content  string
	features []string
}

// What drivers can do. Features are in the rows only if they work.
var (
	lookable   = []string{"SR_SCAN", "SR_UPDATE", "VDI_ATTACH", "VDI_DETACH", "VDI_ACTIVATE", "VDI_DEACTIVATE", "VDI_UPDATE"}
	layered    = []string{"VDI_CREATE", "VDI_DELETE", "VDI_RESIZE", "VDI_RESIZE_ONLINE", "VDI_CLONE", "VDI_SNAPSHOT", "VDI_REVERT", "VDI_INTRODUCE", resetFeature}
	tracked    = []string{"VDI_CONFIG_CBT"}
	deviceKey  = map[string]string{"device": "path of the block device, which must be blank"}
	pathKey    = map[string]string{"location": "path of the directory"}
	noDevice   = backend(backendDeviceMissing, "The request is missing the device parameter")
	noLocation = backend(backendLocationMissing, "The request is missing the location parameter")
	noLibrary  = backend(backendISOLocation, "'Location' parameter must be specified in Device Configuration")
)

var drivers = []driver{
	{
		kind: client.TypeExt, name: "Local EXT4", description: "Disks as qcow2 files on an ext4 file system",
		needs: "device", missing: noDevice, config: deviceKey, local: true, content: "user",
		features: slices.Concat([]string{"SR_PROBE", "THIN_PROVISIONING"}, lookable, layered, tracked),
	},
	{
		kind: client.TypeLVM, name: "Local LVM", description: "Disks as qcow2 images on logical volumes of their full size",
		needs: "device", missing: noDevice, config: deviceKey, local: true, content: "user",
		features: slices.Concat([]string{"SR_PROBE"}, lookable, layered, tracked),
	},
	{
		kind: client.TypeFile, name: "Directory", description: "Disks as qcow2 files in a directory of the host",
		needs: "location", missing: noLocation, config: pathKey, content: "user",
		features: slices.Concat([]string{"SR_PROBE", "THIN_PROVISIONING"}, lookable, layered, tracked),
	},
	{
		kind: client.TypeISO, name: "ISO library", description: "Images of optical discs in a directory of the host",
		needs: "location", missing: noLibrary, found: true, content: "iso",
		config:   map[string]string{"location": pathKey["location"], "legacy_mode": "true: the directory is the host's own"},
		features: slices.Concat([]string{"SR_PROBE"}, lookable),
	},
	{
		kind: client.TypeUdev, name: "Devices", description: "Optical drives and USB disks of the host",
		needs: "location", missing: noLocation, found: true, blocks: true, local: true, content: "disk",
		config:   map[string]string{"location": "/dev/xapi/cd or /dev/xapi/block"},
		features: lookable,
	},
	{
		kind: client.TypeDummy, name: "Dummy", description: "Disks without bytes, to try clients with",
		config: map[string]string{"size": "size to pretend, in bytes"}, content: "user",
		features: slices.Concat([]string{"THIN_PROVISIONING"}, lookable, layered),
	},
}

// driverOf finds a type, or answers SR_UNKNOWN_DRIVER.
func driverOf(kind string) (driver, error) {
	i := slices.IndexFunc(drivers, func(d driver) bool { return d.kind == kind })
	if i < 0 {
		return driver{}, api.ErrSRUnknownDriver(kind)
	}
	return drivers[i], nil
}

// check refuses a device_config that lacks what the type needs.
func (d driver) check(config map[string]string) error {
	if d.needs != "" && config[d.needs] == "" {
		return d.missing
	}
	return nil
}

func (d driver) repository(config map[string]string) client.RepositoryConfig {
	c := maps.Clone(config)
	maps.DeleteFunc(c, func(key, _ string) bool { return d.config[key] == "" })
	if at := c["location"]; strings.HasPrefix(at, "/") {
		c["location"] = path.Clean(at) // one directory has one name
	}
	if d.kind == client.TypeISO && c["legacy_mode"] == "" {
		c = amend(c, "legacy_mode", "true")
	}
	return client.RepositoryConfig{Type: d.kind, Config: c}
}

// version is that of the interface SM drivers have.
const version = "1.0"

func (d driver) row() *api.SM {
	r := api.NewSM()
	r.Type, r.NameLabel, r.NameDescription = d.kind, d.name, d.description
	r.Vendor, r.Copyright, r.Version, r.RequiredAPIVersion = "Cairn", "Cairn", version, version
	r.Configuration = maps.Clone(d.config)
	r.Features = map[string]int64{}
	for _, f := range d.features {
		r.Features[f] = 1
	}
	if _, can := r.Features[resetFeature]; can {
		r.Features[resetFeature] = 2
	}
	r.Capabilities = slices.Sorted(maps.Keys(r.Features))
	if can := r.Features["VDI_CREATE"]; can > 0 {
		r.SupportedImageFormats = []api.ImageFormatType{api.ImageFormatTypeQcow2, api.ImageFormatTypeRaw}
	}
	return r
}

// EnsureDrivers makes the SM rows say what this version can do. Rows of types it
// does not know are another version's, and removed.
func (m *Manager) EnsureDrivers(ctx context.Context) error {
	return m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		there := map[string]api.SMRef{}
		var gone []api.SMRef
		for ref, r := range db.All[api.SM](tx) {
			if _, err := driverOf(r.Type); err != nil || there[r.Type] != "" {
				gone = append(gone, ref)
				continue
			}
			there[r.Type] = ref
		}
		for _, ref := range gone {
			if err := db.Delete(tx, ref); err != nil {
				return err
			}
		}
		for _, d := range drivers {
			if there[d.kind] == "" {
				db.Insert(tx, d.row())
				continue
			}
			r, err := db.Edit(tx, there[d.kind])
			if err != nil {
				return err
			}
			uuid, other := r.UUID, r.OtherConfig
			*r = *d.row()
			r.UUID, r.OtherConfig = uuid, other
		}
		return nil
	})
}
