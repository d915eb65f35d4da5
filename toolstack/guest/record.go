package guest

import (
	"context"
	"reflect"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// record writes what is known into the machine's row, if that says anything else.
func (w *watcher) record(ctx context.Context) {
	if fresh, _ := w.differs(w.m.cfg.DB.Snapshot()); fresh == nil {
		return
	}
	err := w.m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		fresh, ref := w.differs(tx)
		if fresh == nil {
			return nil
		}
		fresh.LastUpdated = time.Now().UTC().Truncate(time.Second)
		if !ref.IsNull() {
			row, err := db.Edit(tx, ref)
			if err == nil {
				*row = *fresh
			}
			return err
		}
		vm, err := db.Edit(tx, w.ref)
		if err == nil {
			fresh.UUID = api.NewUUID()
			vm.GuestMetrics = db.Insert(tx, fresh)
		}
		return err
	})
	if err != nil && ctx.Err() == nil {
		w.m.cfg.Log.Warn("guest-metrics", "uuid", w.uuid, "err", err)
	}
}

// differs is what the row should say, nil when it does; the reference is null where
// there is no row yet. That of a machine that does not run here any more says what its
// end has left.
func (w *watcher) differs(r db.Reader) (*api.VMGuestMetrics, api.VMGuestMetricsRef) {
	vm, err := db.Get(r, w.ref)
	if err != nil || vm.PowerState != api.VMPowerStateRunning || vm.ResidentOn != w.host {
		return nil, ""
	}
	ref := vm.GuestMetrics
	was, err := db.Get(r, ref)
	if err != nil {
		was, ref = api.NewVMGuestMetrics(), ""
	}
	fresh := was.Clone()
	w.facts.describe(fresh, w.now())
	if reflect.DeepEqual(was, fresh) {
		return nil, ""
	}
	return fresh, ref
}

// devices are the numbers of a machine's NICs by their MACs.
func devices(r db.Reader, ref api.VMRef) map[string]string {
	m := map[string]string{}
	vm, err := db.Get(r, ref)
	if err != nil {
		return m
	}
	for _, ref := range vm.VIFs {
		if v, err := db.Get(r, ref); err == nil {
			m[strings.ToLower(v.MAC)] = v.Device
		}
	}
	return m
}
