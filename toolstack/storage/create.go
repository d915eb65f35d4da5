package storage

import (
	"context"
	"strconv"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
)

// CreateSpec is a disk to be made.
type CreateSpec struct {
	SR                api.SRRef
	Size              int64 // rounded up to what volumes can have
	Name, Description string
	Type              api.VDIType // user when empty
	Sharable          bool        // a volume without layers
	ReadOnly          bool
	OtherConfig       map[string]string
	XenstoreData      map[string]string
	SMConfig          map[string]string // "type": "raw" asks for a volume without layers
	Tags              []string
}

// Sizes of a disk. The largest is what an ext4 file system takes as one file.
const (
	sector  = 512
	unit    = 1 << 20
	maxDisk = 16<<40 - 64<<30
)

// Create makes a disk that reads as zeros.
func (m *Manager) Create(ctx context.Context, spec CreateSpec) (api.VDIRef, error) {
	at, err := m.reach(m.cfg.DB.Snapshot(), spec.SR, "")
	if err != nil {
		return "", err
	}
	if err := m.allows(spec.SR, api.StorageOperationsVDICreate); err != nil {
		return "", err
	}
	r, err := spec.row()
	if err != nil {
		return "", err
	}
	ref, err := m.intend(ctx, r)
	if err != nil {
		return "", err
	}
	v, err := at.hostd.CreateVolume(ctx, at.uuid, r.Location, client.VolumeSpec{Size: r.VirtualSize, Format: client.Format(r.SMConfig[formatKey]), Note: makingNote})
	if err != nil {
		m.abandon(ctx, at, ref)
		m.noSpace(ctx, at, err)
		return "", m.placed(at, "", "create", r.VirtualSize).failed(err)
	}
	err = m.finish(ctx, ref, func(_ *db.Tx, r *api.VDI) error {
		r.PhysicalUtilisation = v.Used
		return nil
	})
	if err != nil {
		m.abandon(ctx, at, ref)
		return "", err
	}
	m.after(ctx, at, ref)
	return ref, nil
}

func (spec CreateSpec) row() (*api.VDI, error) {
	if spec.Size <= 0 {
		return nil, api.ErrInvalidValue("virtual_size", strconv.FormatInt(spec.Size, 10))
	}
	r := api.NewVDI()
	r.UUID, r.SR = api.NewUUID(), spec.SR
	r.Location = r.UUID
	if spec.Size > maxDisk {
		return nil, api.ErrVDITooLarge(r.UUID, strconv.FormatInt(maxDisk, 10))
	}
	r.VirtualSize = sizeOf(spec.Sharable, spec.Size)
	r.NameLabel, r.NameDescription = spec.Name, spec.Description
	if r.Type = spec.Type; r.Type == "" {
		r.Type = api.VDITypeUser
	}
	r.Sharable, r.ReadOnly, r.Tags = spec.Sharable, spec.ReadOnly, spec.Tags
	r.OtherConfig, r.XenstoreData = spec.OtherConfig, spec.XenstoreData
	r.SMConfig = publicConfig(spec.SMConfig)
	format := client.Qcow2
	if spec.Sharable || spec.SMConfig["type"] == "raw" {
		format = client.Raw
	}
	r.SMConfig[formatKey] = string(format)
	r.OnBoot = api.OnBootPersist
	return r, nil
}

// roundUp makes a size one that every kind of volume can have.
func roundUp(size int64) int64 {
	step := int64(sector)
	if size >= unit {
		step = unit
	}
	return (size + step - 1) / step * step
}

// finish makes a disk of an intent. It does so also when the caller has gone.
func (m *Manager) finish(ctx context.Context, ref api.VDIRef, also func(*db.Tx, *api.VDI) error) error {
	ctx, cancel := finishing(ctx)
	defer cancel()
	err := db.Modify(ctx, m.cfg.DB, ref, func(tx *db.Tx, r *api.VDI) error {
		r.Managed, r.SMConfig = true, amend(r.SMConfig, stateKey, "")
		return also(tx, r)
	})
	if err == nil {
		m.settled(ref)
	}
	return err
}

// allows asks the table of operations on repositories.
func (m *Manager) allows(ref api.SRRef, op api.StorageOperations) error {
	snap := m.cfg.DB.Snapshot()
	sr, err := db.Get(snap, ref)
	if err != nil {
		return err
	}
	return operation.SR.Check(snap, ref, sr, op)
}
