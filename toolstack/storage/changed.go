package storage

import (
	"maps"
	"slices"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// What is known of a disk's changes follows its layers. A layer is made empty when a
// snapshot takes the one below, so what it holds itself is what was written since. A
// snapshot that takes such a layer takes that record with it: the disk's next one
// begins with the layer above.
//
// A layer that holds changes and is not a disk's top one any more is owed to whom they
// belong. Before anything is merged into it, or it into another, or it goes, what it
// holds is written into a log of its owner: see keep. Until then it stays as it is.

// logsOf are the names of the logs that hold changes of a disk or a snapshot.
func logsOf(disk *api.VDI) []string { return strings.Fields(disk.SMConfig[logKey]) }

func setLogs(disk *api.VDI, names []string) {
	disk.SMConfig = amend(disk.SMConfig, logKey, strings.Join(names, " "))
}

// owed are the rows whose volumes hold changes of a disk or a snapshot.
func owed(r db.Reader, disk *api.VDI) map[api.VDIRef]*api.VDI {
	return rowsWith(r, disk.SR, owedKey, disk.UUID)
}

// heirs are the rows whose changes are known since a snapshot: one, as a rule.
func heirs(r db.Reader, disk *api.VDI) map[api.VDIRef]*api.VDI {
	return rowsWith(r, disk.SR, sinceKey, disk.UUID)
}

func rowsWith(r db.Reader, sr api.SRRef, key, value string) map[api.VDIRef]*api.VDI {
	all := map[api.VDIRef]*api.VDI{}
	for ref, v := range disks(r, sr) {
		if v.SMConfig[key] == value {
			all[ref] = v
		}
	}
	return all
}

// owe is called when a disk leaves a layer to a row: what the layer holds is the
// disk's, or already another's.
func owe(disk, old *api.VDI) {
	owner := disk.SMConfig[owedKey]
	if owner == "" && disk.SMConfig[sinceKey] != "" && !disk.IsASnapshot {
		owner = disk.UUID
	}
	disk.SMConfig = amend(disk.SMConfig, owedKey, "")
	old.SMConfig = amend(old.SMConfig, owedKey, owner)
}

// hand makes changes owed to one row those of another; "" is nobody.
func hand(tx *db.Tx, from *api.VDI, to string) error {
	for ref := range owed(tx, from) {
		v, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		v.SMConfig = amend(v.SMConfig, owedKey, to)
	}
	return nil
}

// passOn gives a new snapshot the changes of its disk, which begins anew.
func passOn(tx *db.Tx, disk, snapshot *api.VDI) error {
	if snapshot.CBTEnabled = disk.CBTEnabled && !disk.IsASnapshot; !snapshot.CBTEnabled {
		return nil
	}
	if err := hand(tx, disk, snapshot.UUID); err != nil {
		return err
	}
	for _, key := range []string{sinceKey, logKey} {
		snapshot.SMConfig = amend(snapshot.SMConfig, key, disk.SMConfig[key])
	}
	// A merge of its former layer that was recorded and not begun is not for this one.
	disk.SMConfig = amend(amend(amend(disk.SMConfig, sinceKey, snapshot.UUID), logKey, ""), stepKey, "")
	return nil
}

// cut forgets since when the changes of a disk or a snapshot are known.
func cut(tx *db.Tx, disk *api.VDI) error {
	disk.SMConfig = amend(amend(disk.SMConfig, sinceKey, ""), logKey, "")
	return hand(tx, disk, "")
}

// untrack ends the record of a disk whose content becomes another's.
func untrack(tx *db.Tx, disk *api.VDI) error {
	disk.CBTEnabled = false
	for ref := range heirs(tx, disk) {
		heir, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		if err := cut(tx, heir); err != nil {
			return err
		}
	}
	return cut(tx, disk)
}

// bypass is called for a row that goes: what is known since it is known since the one
// before it, with its own changes among the others. layer is the row its volume goes to,
// nil for none.
func bypass(tx *db.Tx, disk, layer *api.VDI) error {
	lost := disk.SMConfig[sinceKey] == ""
	owner := disk.SMConfig[owedKey]
	if owner != "" && (layer == nil || layer.SMConfig[stateKey] != "") {
		lost = lost || owner == disk.UUID
	}
	for i, ref := range slices.Sorted(maps.Keys(heirs(tx, disk))) {
		heir, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		if lost || i > 0 {
			if err := cut(tx, heir); err != nil {
				return err
			}
			continue
		}
		heir.SMConfig = amend(heir.SMConfig, sinceKey, disk.SMConfig[sinceKey])
		setLogs(heir, append(logsOf(heir), logsOf(disk)...))
		if err := hand(tx, disk, heir.UUID); err != nil {
			return err
		}
		if owner == disk.UUID {
			owner = heir.UUID
		}
	}
	if owner == disk.UUID {
		owner = ""
	}
	if layer != nil && layer.SMConfig[stateKey] == "" {
		layer.SMConfig = amend(layer.SMConfig, owedKey, owner)
	}
	return hand(tx, disk, "")
}

// keeps reports whether what a disk's top layer holds must stay apart.
func (s merger) keeps(r db.Reader, disk *api.VDI) bool {
	if disk.SMConfig[sinceKey] == "" || disk.IsASnapshot {
		return false
	}
	layers, err := chain(r, disk)
	return err != nil || len(layers) < keepLayers
}
