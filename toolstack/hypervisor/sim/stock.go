package sim

import (
	"fmt"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage/storagetest"
)

// stock makes the volumes that rows speak of.
func stock(s *db.Snapshot, h *storagetest.Hostd) error {
	names := map[string]string{} // of volumes by their disks' uuids
	volumes := map[api.SRRef][]client.Volume{}
	for _, v := range db.All[api.VDI](s) {
		names[v.UUID] = v.Location
	}
	for _, v := range db.All[api.VDI](s) {
		volumes[v.SR] = append(volumes[v.SR], client.Volume{
			Name: v.Location, Format: client.Format(v.SMConfig["image-format"]), VirtualSize: v.VirtualSize,
			Used: v.PhysicalUtilisation, Backing: names[v.SMConfig["vhd-parent"]],
		})
	}
	for ref, sr := range db.All[api.SR](s) {
		if len(sr.PBDs) == 0 {
			continue
		}
		pbd, err := db.Get(s, sr.PBDs[0])
		if err != nil {
			return err
		}
		config := client.RepositoryConfig{Type: sr.Type, Config: pbd.DeviceConfig}
		if err := h.Adopt(sr.UUID, config, sr.PhysicalSize, volumes[ref]); err != nil {
			return fmt.Errorf("repository %s: %w", sr.NameLabel, err)
		}
	}
	return nil
}
