package storage

import (
	"context"
	"errors"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Keys of a host's other_config about the repository it begins with.
const (
	// localKey is the uuid of the one it has been given. From then on it is like
	// any other: forgotten or destroyed, it does not come back.
	localKey = "cairn:local-storage"
	// localIntentKey is the uuid under which the medium may have been formatted.
	localIntentKey = "cairn:local-storage-making"
)

const (
	localLabel       = "Local storage"
	localDescription = "Disks of this host alone"
	localAlert       = "ALARM"
)

// beginning is the medium of the repository a host begins with.
type beginning struct {
	host   api.HostRef
	config client.RepositoryConfig
	told   string // why it waits
}

// BeginWith names the medium that a host which was never given one is to have as
// its local storage: a blank one is formatted, one that holds a repository is
// attached as it is, and one that holds anything else is left alone. It is called
// before Run, which does it.
func (m *Manager) BeginWith(host api.HostRef, config client.RepositoryConfig) {
	m.local = &beginning{host: host, config: config}
}

// begin makes the repository, if there is one to make. A medium that cannot be used
// is not tried again before the next start: whoever empties it may want it for
// something else. One that is not there may come: disks are found late in a boot.
func (m *Manager) begin(ctx context.Context) {
	b := m.local
	if b == nil {
		return
	}
	err := m.beginNow(ctx, b)
	var refused *client.Error
	switch {
	case ctx.Err() != nil:
		return
	case err == nil:
		m.local = nil
	case errors.As(err, &refused) && refused.Code != client.CodeBadRequest && refused.Code != client.CodeJobLost:
		m.local = nil
		m.cfg.Log.Error("local-storage-refused", "type", b.config.Type, "err", err)
		m.tellRefused(ctx, b.host, err)
	case err.Error() != b.told:
		b.told = err.Error()
		m.cfg.Log.Warn("local-storage-waits", "type", b.config.Type, "err", err)
	}
}

func (m *Manager) tellRefused(ctx context.Context, host api.HostRef, why error) {
	h, err := db.Get(m.cfg.DB.Snapshot(), host)
	if err != nil || m.cfg.Alerts == nil {
		return
	}
	body := "The medium for local storage cannot be used and has been left as it is: " + why.Error()
	if _, err := m.cfg.Alerts.Raise(ctx, localAlert, api.ClsHost, h.UUID, body); err != nil {
		m.cfg.Log.Warn("alert", "name", localAlert, "err", err)
	}
}

// beginNow goes through the steps, each of which may be the last one of a process:
// the uuid is on record before anything is formatted with it, formatting anew with
// the same uuid does nothing, and all rows come in one transaction.
func (m *Manager) beginNow(ctx context.Context, b *beginning) error {
	id, err := m.localIntent(ctx, b.host)
	if err != nil || id == "" {
		return err
	}
	h, err := m.hostdOf(b.host)
	if err != nil {
		return err
	}
	found, err := h.Probe(ctx, b.config)
	if err != nil {
		return err
	}
	holds := ""
	for _, r := range found {
		holds = r.UUID
	}
	if holds == "" || holds == id {
		if _, err := h.FormatRepository(ctx, id, b.config); err != nil {
			return err
		}
		holds = id
	}
	if _, err := db.ByUUID[api.SR](m.cfg.DB.Snapshot(), holds); err != nil {
		if _, err := h.AttachRepository(ctx, holds, b.config); err != nil {
			return err
		}
	}
	pbd, err := m.insertLocal(ctx, b, holds)
	if err != nil || pbd == "" {
		return err
	}
	m.cfg.Log.Info("local-storage", "repository", holds, "type", b.config.Type, "found", holds != id)
	return m.tryAttach(ctx, pbd) // which finds its disks
}

// localIntent is the uuid for the repository, on record; "" when the host has been
// given one before.
func (m *Manager) localIntent(ctx context.Context, host api.HostRef) (id string, err error) {
	snap, err := db.Get(m.cfg.DB.Snapshot(), host)
	if err != nil || snap.OtherConfig[localKey] != "" {
		return "", err
	}
	if id = snap.OtherConfig[localIntentKey]; id != "" {
		return id, nil
	}
	id = api.NewUUID()
	return id, db.Modify(ctx, m.cfg.DB, host, func(_ *db.Tx, h *api.Host) error {
		h.OtherConfig = amend(h.OtherConfig, localIntentKey, id)
		return nil
	})
}

// insertLocal writes the rows of a repository that is attached; no PBD when it has
// rows already, as after a client has replaced other_config.
func (m *Manager) insertLocal(ctx context.Context, b *beginning, id string) (ref api.PBDRef, err error) {
	d, err := driverOf(b.config.Type)
	if err != nil {
		return "", err
	}
	err = m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		host, err := db.Edit(tx, b.host)
		if err != nil {
			return err
		}
		host.OtherConfig = amend(amend(host.OtherConfig, localIntentKey, ""), localKey, id)
		if _, err := db.ByUUID[api.SR](tx, id); err == nil {
			return nil
		}
		pbd := api.NewPBD()
		pbd.SR, pbd.Host = db.Insert(tx, newSR(id, localLabel, localDescription, d, "", false, nil)), b.host
		pbd.DeviceConfig, pbd.CurrentlyAttached = b.config.Config, true
		pbd.OtherConfig = map[string]string{pluggedKey: "true"}
		ref = db.Insert(tx, pbd)
		return takeDefaults(tx, pbd.SR)
	})
	return ref, err
}

// takeDefaults makes a repository the pool's choice for what has none.
func takeDefaults(tx *db.Tx, ref api.SRRef) error {
	for pool := range db.All[api.Pool](tx) {
		p, err := db.Edit(tx, pool)
		if err != nil {
			return err
		}
		for _, at := range []*api.SRRef{&p.DefaultSR, &p.SuspendImageSR, &p.CrashDumpSR} {
			if _, err := db.Get(tx, *at); err != nil {
				*at = ref
			}
		}
	}
	return nil
}
