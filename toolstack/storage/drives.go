package storage

import (
	"context"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

const (
	driveKind = "udev"
	// driveType of SR.sm_config says which drives one shows; clients look for it.
	driveType = "type"
)

// drives are the repositories every host has from its first boot on.
var drives = []struct{ label, description, content, location, kind string }{
	{"DVD drives", "Physical DVD drives", "iso", "/dev/xapi/cd", "cd"},
	{"Removable storage", "USB disks and the like", "disk", "/dev/xapi/block", "block"},
}

// EnsureDrives makes the repositories that show a host's own drives where they
// are missing. One that somebody has forgotten comes back at the next start.
func (m *Manager) EnsureDrives(ctx context.Context, host api.HostRef) error {
	d, err := driverOf(driveKind)
	if err != nil {
		return err
	}
	return m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		if _, err := db.Get(tx, host); err != nil {
			return err
		}
		for _, want := range drives {
			if shows(tx, host, want.location) {
				continue
			}
			sr := newSR(api.NewUUID(), want.label, want.description, d, want.content, false, map[string]string{driveType: want.kind})
			pbd := api.NewPBD()
			pbd.SR, pbd.Host = db.Insert(tx, sr), host
			pbd.DeviceConfig = map[string]string{"location": want.location}
			pbd.OtherConfig = map[string]string{pluggedKey: "true"}
			db.Insert(tx, pbd)
		}
		return nil
	})
}

// shows reports whether a repository of a host has these drives.
func shows(r db.Reader, host api.HostRef, location string) bool {
	for _, pbd := range db.All[api.PBD](r) {
		sr, err := db.Get(r, pbd.SR)
		if err == nil && pbd.Host == host && sr.Type == driveKind && pbd.DeviceConfig["location"] == location {
			return true
		}
	}
	return false
}

// lookAtDrives sees what people have put in and taken out.
func (m *Manager) lookAtDrives(ctx context.Context) {
	for _, at := range m.attached() {
		if at.kind != driveKind {
			continue
		}
		if err := m.look(ctx, at.ref); err != nil && ctx.Err() == nil {
			m.cfg.Log.Warn("repository-scan", "repository", at.uuid, "err", err)
		}
	}
}
