package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage/changes"
)

const (
	// maxLogs is how many logs one row has before they are joined.
	maxLogs = 8
	// logGrace is how long a log that no row names is left alone: somebody else may be
	// about to name it.
	logGrace = time.Hour
	// lostAlert is the name of the alert for changes that cannot be known any more.
	lostAlert = "VDI_CBT_METADATA_INCONSISTENT"
)

// errMoved is a row that is not what it was when its layer was read.
var errMoved = errors.New("the layer has got another purpose")

// keepOwed writes what layers of a repository hold into logs of whom it belongs to.
// What cannot be written now keeps its layer, and is tried again.
func (m *Manager) keepOwed(ctx context.Context, at repository) {
	for ref, v := range disks(m.cfg.DB.Snapshot(), at.ref) {
		if v.SMConfig[owedKey] == "" || v.SMConfig[stateKey] != "" {
			continue
		}
		if err := m.keep(ctx, at, ref); err != nil && ctx.Err() == nil {
			m.cfg.Log.Warn("changes-not-kept", "repository", at.uuid, "layer", v.Location, "err", err)
		}
	}
}

// keep writes what one layer holds into a log of its owner.
func (m *Manager) keep(ctx context.Context, at repository, ref api.VDIRef) error {
	snap := m.cfg.DB.Snapshot()
	row, err := db.Get(snap, ref)
	if err != nil || row.SMConfig[owedKey] == "" {
		return ignoreGone(err)
	}
	owner := byUUID(snap, row.SMConfig[owedKey])
	if owner == nil {
		return db.Modify(ctx, m.cfg.DB, ref, func(_ *db.Tx, v *api.VDI) error {
			v.SMConfig = amend(v.SMConfig, owedKey, "")
			return nil
		})
	}
	has, err := m.held(ctx, at, row)
	was := logsOf(owner)
	names := slices.Clone(was)
	if err == nil && len(was) >= maxLogs {
		names = nil
		has, err = m.joined(ctx, at, was, has)
	}
	if isLost(err) && m.sameRecord(snap, owner) {
		return m.lose(ctx, owner, err)
	}
	if err != nil {
		return err
	}
	name := ""
	if has.Count() > 0 {
		name = api.NewUUID()
		names = append(names, name)
		if err := at.hostd.WriteChangeLog(ctx, at.uuid, name, has.Encode()); err != nil {
			return err
		}
	}
	err = m.cfg.DB.Update(ctx, func(tx *db.Tx) error { return kept(tx, ref, row, owner, names) })
	m.spare(ctx, at, append(was, name)...)
	return err
}

// kept enters that what a layer holds is in logs.
func kept(tx *db.Tx, ref api.VDIRef, row, owner *api.VDI, names []string) error {
	now, err := db.Edit(tx, ref)
	if err != nil {
		return err
	}
	to, err := db.ByUUID[api.VDI](tx, owner.UUID)
	if err != nil {
		return err
	}
	heir, err := db.Edit(tx, to)
	if err != nil {
		return err
	}
	if now.SMConfig[owedKey] != owner.UUID || now.Location != row.Location || heir.SMConfig[logKey] != owner.SMConfig[logKey] {
		return errMoved
	}
	now.SMConfig = amend(now.SMConfig, owedKey, "")
	setLogs(heir, names)
	return nil
}

// held is what a layer holds.
func (m *Manager) held(ctx context.Context, at repository, row *api.VDI) (*changes.Map, error) {
	a, err := at.hostd.Allocation(ctx, at.uuid, row.Location)
	if err != nil {
		return nil, err
	}
	has, err := changes.FromBits(a.Size, a.Bits)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", changes.ErrDamaged, err)
	}
	return has, nil
}

// joined adds what logs say to a map.
func (m *Manager) joined(ctx context.Context, at repository, names []string, has *changes.Map) (*changes.Map, error) {
	for _, name := range names {
		text, err := at.hostd.ReadChangeLog(ctx, at.uuid, name)
		if err != nil {
			return nil, err
		}
		log, err := changes.Decode(text)
		if err != nil {
			return nil, fmt.Errorf("log %s: %w", name, err)
		}
		if has, err = changes.Join(has, log); err != nil {
			return nil, err
		}
	}
	return has, nil
}

// isLost reports whether trying again will not help.
func isLost(err error) bool {
	return absent(err) || hasCode(err, client.CodeDamaged) || hasCode(err, client.CodeUnsupported) || errors.Is(err, changes.ErrDamaged)
}

// sameRecord reports whether where the changes of a row are is still what it was.
func (m *Manager) sameRecord(then db.Reader, owner *api.VDI) bool {
	snap := m.cfg.DB.Snapshot()
	now := byUUID(snap, owner.UUID)
	if now == nil || now.SMConfig[sinceKey] != owner.SMConfig[sinceKey] || now.SMConfig[logKey] != owner.SMConfig[logKey] || now.Location != owner.Location {
		return false
	}
	was, is := owed(then, owner), owed(snap, now)
	for ref, row := range was {
		if is[ref] == nil || is[ref].Location != row.Location {
			return false
		}
	}
	return len(was) == len(is)
}

// lose ends a record that cannot be read, and says so.
func (m *Manager) lose(ctx context.Context, owner *api.VDI, why error) error {
	ref, err := db.ByUUID[api.VDI](m.cfg.DB.Snapshot(), owner.UUID)
	if err != nil {
		return nil
	}
	if err := db.Modify(ctx, m.cfg.DB, ref, cut); err != nil {
		return err
	}
	m.tellLost(ctx, owner, why)
	return nil
}

func (m *Manager) tellLost(ctx context.Context, owner *api.VDI, why error) {
	m.cfg.Log.Warn("changes-lost", "vdi", owner.UUID, "err", why)
	if m.cfg.Alerts == nil {
		return
	}
	text := "What changed in the disk before this moment is not known any more; the next backup has to be a full one: " + why.Error()
	if _, err := m.cfg.Alerts.Raise(ctx, lostAlert, api.ClsVDI, owner.UUID, text); err != nil {
		m.cfg.Log.Warn("alert", "name", lostAlert, "err", err)
	}
}

// keepFor readies a disk's record for the disk to go, and returns the logs that may
// be of nobody afterwards. A record that cannot be kept does not keep the disk: then its
// changes are lost to those after it.
func (m *Manager) keepFor(ctx context.Context, at repository, vdi api.VDIRef) []string {
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return nil
	}
	if disk.SMConfig[owedKey] != "" {
		err := m.keep(ctx, at, vdi)
		if err != nil && len(children(snap, disk)) == 0 {
			for _, heir := range heirs(snap, disk) {
				m.tellLost(ctx, heir, err)
			}
		}
		if now, err := db.Get(m.cfg.DB.Snapshot(), vdi); err == nil {
			disk = now
		}
	}
	logs := logsOf(disk)
	for _, heir := range heirs(snap, disk) {
		logs = append(logs, logsOf(heir)...)
	}
	return logs
}

// spare removes logs that no row names any more.
func (m *Manager) spare(ctx context.Context, at repository, names ...string) {
	ctx, cancel := finishing(ctx)
	defer cancel()
	needed := m.named(at.ref)
	for _, name := range names {
		if name == "" || needed[name] {
			continue
		}
		if err := at.hostd.DeleteChangeLog(ctx, at.uuid, name); err != nil {
			m.cfg.Log.Warn("log-left", "repository", at.uuid, "log", name, "err", err)
		}
	}
}

// named are the logs that rows of a repository name.
func (m *Manager) named(sr api.SRRef) map[string]bool {
	all := map[string]bool{}
	for _, v := range disks(m.cfg.DB.Snapshot(), sr) {
		for _, name := range logsOf(v) {
			all[name] = true
		}
	}
	return all
}

// sweepLogs removes logs that a process which is no more has left, once they have been
// of nobody for long.
func (m *Manager) sweepLogs(ctx context.Context, at repository) error {
	if !can(m.cfg.DB.Snapshot(), at.kind, tracked[0]) {
		return nil
	}
	list, err := at.hostd.ChangeLogs(ctx, at.uuid)
	if err != nil {
		return err
	}
	needed, now := m.named(at.ref), m.cfg.Now()
	var old []string
	m.mu.Lock()
	seen := map[string]time.Time{}
	for _, l := range list {
		if needed[l.Name] {
			continue
		}
		if seen[l.Name] = now; !m.strays[at.ref][l.Name].IsZero() {
			seen[l.Name] = m.strays[at.ref][l.Name]
		}
		if now.Sub(seen[l.Name]) >= logGrace {
			old = append(old, l.Name)
		}
	}
	m.strays[at.ref] = seen
	m.mu.Unlock()
	m.spare(ctx, at, old...)
	return nil
}
