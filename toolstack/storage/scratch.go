package storage

import (
	"context"
	"errors"
	"sync"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/nbd"
)

// Scratch is room in a repository for an image that cannot be read while it comes. It
// is nobody's disk: its row says that it is being made for as long as it is there, so
// that after a crash it is removed.
type Scratch struct {
	m    *Manager
	at   repository
	ref  api.VDIRef
	name string
	once sync.Once
}

// NewScratch makes room for an image of a size; Remove removes it.
func (m *Manager) NewScratch(ctx context.Context, sr api.SRRef, size int64) (*Scratch, error) {
	at, err := m.reach(m.cfg.DB.Snapshot(), sr, "")
	if err != nil {
		return nil, err
	}
	if err := m.allows(sr, api.StorageOperationsVDICreate); err != nil {
		return nil, err
	}
	row, err := CreateSpec{SR: sr, Size: size, Name: "upload", SMConfig: map[string]string{"type": "raw"}}.row()
	if err != nil {
		return nil, err
	}
	row.SMConfig[layerKey] = "hidden"
	ref, err := m.intend(ctx, row)
	if err != nil {
		return nil, err
	}
	s := &Scratch{m: m, at: at, ref: ref, name: row.Location}
	_, err = at.hostd.CreateVolume(ctx, at.uuid, s.name, client.VolumeSpec{Size: row.VirtualSize, Format: client.Raw, Note: makingNote})
	if err != nil {
		s.Remove()
		m.noSpace(ctx, at, err)
		return nil, m.placed(at, "", "create", row.VirtualSize).failed(err)
	}
	return s, nil
}

// Write gives the room, to put the image into.
func (s *Scratch) Write(ctx context.Context) (disk.Device, error) {
	return s.open(ctx, client.ExportRequest{Writable: true})
}

// Read gives what the image reads as. It is refused with IMPORT_ERROR when it is none,
// or refers to something outside of it.
func (s *Scratch) Read(ctx context.Context, format client.Format) (disk.Device, error) {
	return s.open(ctx, client.ExportRequest{As: format})
}

func (s *Scratch) open(ctx context.Context, req client.ExportRequest) (disk.Device, error) {
	lent, err := s.at.hostd.ExportVolume(ctx, s.at.uuid, s.name, req)
	var c *nbd.Client
	if err == nil {
		c, err = nbd.New(ctx, lent, "")
	}
	if err == nil {
		return c, nil
	}
	var e *client.Error
	if req.As != "" && errors.As(err, &e) && (e.Code == client.CodeDamaged || e.Code == client.CodeInternal) {
		return nil, api.ErrImportError(e.Message)
	}
	return nil, s.m.placed(s.at, "", "stream", 0).failed(err)
}

// Remove gives the room back.
func (s *Scratch) Remove() {
	s.once.Do(func() {
		s.m.abandon(context.Background(), s.at, s.ref)
		ctx, cancel := finishing(context.Background())
		defer cancel()
		if _, err := db.Get(s.m.cfg.DB.Snapshot(), s.ref); err != nil {
			_ = s.m.measure(ctx, s.at, false) // figures are read again soon
		}
	})
}
