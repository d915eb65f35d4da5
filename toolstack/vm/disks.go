package vm

import (
	"context"
	"maps"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/storage"
)

// Disks is what this package needs of storage; *storage.Manager is one. What the
// methods promise is said there.
type Disks interface {
	Attach(ctx context.Context, host api.HostRef, vdi api.VDIRef, writable bool) (*hypervisor.Source, error)
	Detach(ctx context.Context, host api.HostRef, vdi api.VDIRef) error
	Create(ctx context.Context, spec storage.CreateSpec) (api.VDIRef, error)
	Destroy(ctx context.Context, vdi api.VDIRef) error
	Clone(ctx context.Context, vdi api.VDIRef, name string) (api.VDIRef, error)
	Copy(ctx context.Context, vdi api.VDIRef, sr api.SRRef, progress func(float64)) (api.VDIRef, error)
	Snapshot(ctx context.Context, vdis []api.VDIRef, live func(context.Context, map[api.VDIRef]hypervisor.Source) error) (map[api.VDIRef]api.VDIRef, error)
	Revert(ctx context.Context, snapshots map[api.VDIRef]api.VDIRef) error
}

// job makes the disks of one operation. Each has the job's mark in its row from its
// first moment, and loses it in the transaction that makes it part of a VM. A disk
// with the mark of a job that is no more, by failure or by a crash, is swept away.
type job struct {
	m    *Manager
	mark string
}

// dropped is the mark of disks that were part of a VM and are not wanted any more.
const dropped = "nothing"

func (m *Manager) newJob() *job {
	j := &job{m, api.NewUUID()}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.jobs[j.mark] = true
	return j
}

// end gives up what still has the mark.
func (j *job) end() {
	j.m.mu.Lock()
	delete(j.m.jobs, j.mark)
	j.m.mu.Unlock()
	j.m.sweepSoon()
}

// making is the context to make the job's disks under.
func (j *job) making(ctx context.Context) context.Context { return storage.Marked(ctx, j.mark) }

// keep makes new disks part of what the transaction writes.
func keep(tx *db.Tx, vdis ...api.VDIRef) error { return mark(tx, "", vdis...) }

// drop gives up disks in the transaction in which they stop being part of a VM. A
// disk that is gone already is fine.
func drop(tx *db.Tx, vdis ...api.VDIRef) error { return mark(tx, dropped, vdis...) }

func mark(tx *db.Tx, text string, vdis ...api.VDIRef) error {
	for _, ref := range vdis {
		if _, err := db.Get(tx, ref); err != nil && text == dropped || ref.IsNull() {
			continue
		}
		vdi, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		config := maps.Clone(vdi.SMConfig)
		if config == nil {
			config = map[string]string{}
		}
		if config[storage.MarkKey] = text; text == "" {
			delete(config, storage.MarkKey)
		}
		vdi.SMConfig = config
	}
	return nil
}
