package storage

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Arrived gives a disk that came from elsewhere what its description says and what could
// not be said when it was made: it had to be written to. A snapshot is one of the given
// disk, or of one that is not here any more.
func Arrived(tx *db.Tx, ref api.VDIRef, from *api.VDI, snapshot bool, of api.VDIRef) error {
	r, err := db.Edit(tx, ref)
	if err != nil {
		return err
	}
	r.ReadOnly, r.AllowCaching = from.ReadOnly, from.AllowCaching
	if r.IsASnapshot = snapshot; snapshot {
		r.SnapshotOf, r.SnapshotTime = of, from.SnapshotTime
	}
	return nil
}
