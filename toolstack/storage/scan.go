package storage

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/google/uuid"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

func (m *Manager) scan(c *api.Call, ref api.SRRef) error {
	done, err := m.holdSR(c, ref, api.StorageOperationsScan)
	if err != nil {
		return err
	}
	defer done()
	return m.look(c, ref)
}

// look compares rows with volumes: volumes without a row get one when they say
// what they are, rows without a volume are marked, sizes are corrected. Nothing is
// removed but rows of media that others put in and take out.
func (m *Manager) look(ctx context.Context, ref api.SRRef) error {
	before := m.cfg.DB.Snapshot() // what is made or removed from now on is not for this look
	at, err := m.reach(before, ref, "")
	if err != nil {
		return err
	}
	all, err := at.hostd.Volumes(ctx, at.uuid)
	if err != nil {
		return place{sr: ref}.failed(err)
	}
	d, err := driverOf(at.kind)
	if err != nil {
		return err
	}
	s := survey{m: m, at: at, driver: d, volumes: map[string]client.Volume{}, rows: map[string]api.VDIRef{}}
	for _, v := range all {
		s.volumes[v.Name] = v
	}
	for vdi, disk := range disks(before, ref) {
		if disk.Type != api.VDITypeCBTMetadata {
			s.rows[disk.Location] = vdi
		}
	}
	if s.differs(before) {
		if err := m.cfg.DB.Update(ctx, s.correct); err != nil {
			return err
		}
	}
	return place{sr: ref}.failed(m.measure(ctx, at, true))
}

// survey is a comparison of a repository's rows with its volumes.
type survey struct {
	m       *Manager
	at      repository
	driver  driver
	volumes map[string]client.Volume
	rows    map[string]api.VDIRef // before the volumes were listed, by location
}

// differs spares the transaction where all is as it should be.
func (s survey) differs(r db.Reader) bool {
	for name := range s.volumes {
		if s.rows[name] == "" {
			return true
		}
	}
	for name, ref := range s.rows {
		disk, err := db.Get(r, ref)
		v, there := s.volumes[name]
		if err == nil && disk.SMConfig[stateKey] == "" && (disk.Missing == there || there && disk.VirtualSize != v.VirtualSize) {
			return true
		}
	}
	return false
}

func (s survey) correct(tx *db.Tx) error {
	now := map[string]bool{}
	uuids := map[string]string{} // of rows by location
	for _, disk := range disks(tx, s.at.ref) {
		now[disk.Location], uuids[disk.Location] = true, disk.UUID
	}
	fresh := map[api.VDIRef]client.Volume{}
	below := map[string]bool{}
	for _, v := range s.volumes {
		below[v.Backing] = true
	}
	// Top layers come first: when a note was not renewed in time, a layer may claim to
	// be the disk that is now above it.
	names := slices.SortedFunc(maps.Keys(s.volumes), func(a, b string) int {
		if below[a] != below[b] {
			return map[bool]int{true: 1, false: -1}[below[a]]
		}
		return strings.Compare(a, b)
	})
	for _, name := range names {
		v := s.volumes[name]
		if s.rows[name] != "" || now[name] {
			continue
		}
		if r := s.introduce(tx, v); r != nil {
			if below[name] && !r.IsASnapshot {
				r.Managed = false
			}
			if !r.Managed {
				r.SMConfig = amend(r.SMConfig, layerKey, "hidden")
			}
			ref := db.Insert(tx, r)
			fresh[ref], uuids[name] = v, r.UUID
		}
	}
	if err := s.relate(tx, fresh, uuids); err != nil {
		return err
	}
	for name, ref := range s.rows {
		if err := s.compare(tx, name, ref); err != nil {
			return err
		}
	}
	return nil
}

// introduce makes a row for a volume that says what it is; nil for another.
func (s survey) introduce(r db.Reader, v client.Volume) *api.VDI {
	row := api.NewVDI()
	row.SR, row.Location, row.VirtualSize, row.PhysicalUtilisation = s.at.ref, v.Name, v.VirtualSize, v.Used
	row.Type, row.OnBoot, row.Managed = api.VDITypeUser, api.OnBootPersist, true
	row.SMConfig = map[string]string{formatKey: string(v.Format)}
	var n note
	err := json.Unmarshal([]byte(v.Note), &n)
	switch {
	case s.driver.found:
		space, err := uuid.Parse(s.at.uuid)
		if err != nil {
			return nil
		}
		// The same file is the same disk, however often the library is forgotten.
		row.UUID, row.NameLabel, row.ReadOnly = uuid.NewSHA1(space, []byte(v.Name)).String(), v.Name, true
		row.SMConfig = s.foreign(v)
	case v.Problem != "" || err != nil || n.Making:
		s.m.cfg.Log.Warn("volume-unknown", "repository", s.at.uuid, "volume", v.Name, "problem", v.Problem)
		return nil
	default:
		row.UUID, row.NameLabel, row.NameDescription, row.Managed = n.UUID, n.Name, n.Description, !n.Hidden
		if n.Type != "" {
			row.Type = api.VDIType(n.Type)
		}
		row.IsASnapshot = n.SnapshotOf != ""
	}
	if byUUID(r, row.UUID) != nil {
		row.UUID = api.NewUUID() // a copy of a medium that is here as well
	}
	return row
}

// foreign is what clients look for in the sm_config of disks that others made.
func (s survey) foreign(v client.Volume) map[string]string {
	if !s.driver.blocks {
		return map[string]string{}
	}
	return map[string]string{"hotplugged_at": s.m.cfg.Now().UTC().Format(api.TimeLayout)}
}

// relate connects new rows with the layers beneath and with what they are
// snapshots of.
func (s survey) relate(tx *db.Tx, fresh map[api.VDIRef]client.Volume, uuids map[string]string) error {
	for ref, v := range fresh {
		row, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		if v.Backing != "" {
			row.SMConfig = amend(row.SMConfig, parentKey, uuids[v.Backing])
		}
		var n note
		if json.Unmarshal([]byte(v.Note), &n) == nil && n.SnapshotOf != "" {
			if of, err := db.ByUUID[api.VDI](tx, n.SnapshotOf); err == nil {
				row.SnapshotOf = of
			}
		}
	}
	return nil
}

// compare corrects the row of a volume, or of one that is not there.
func (s survey) compare(tx *db.Tx, name string, ref api.VDIRef) error {
	disk, err := db.Get(tx, ref)
	if err != nil || disk.Location != name || disk.SMConfig[stateKey] != "" {
		return nil
	}
	v, there := s.volumes[name]
	if !there && s.driver.found {
		if len(disk.VBDs) == 0 && len(users(disk)) == 0 {
			return db.Delete(tx, ref)
		}
	}
	if disk.Missing == !there && (!there || disk.VirtualSize == v.VirtualSize) {
		return nil
	}
	edit, err := db.Edit(tx, ref)
	if err != nil {
		return err
	}
	if edit.Missing = !there; there {
		edit.VirtualSize = v.VirtualSize
	} else {
		s.m.cfg.Log.Error("volume-missing", "repository", s.at.uuid, "vdi", disk.UUID, "volume", name)
	}
	return nil
}
