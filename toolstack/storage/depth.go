package storage

import (
	"fmt"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// maxChain is how many layers a disk may have, those that wait to be merged and that of
// a disk that resets among them.
const maxChain = hypervisor.MaxLayers

// maxFound bounds the layers of a disk that was made when more were allowed: it is not
// opened by a domain before it is merged.
const maxFound = 60

// keepLayers is how many layers a disk may have for its own changes to stay in its top
// one: each snapshot that goes leaves one behind while its machine runs. Behind that the
// record ends and the layers are merged, for a disk must not run out of them.
const keepLayers = maxChain - 6

// deep refuses another layer on a disk that has as many as it may.
func deep(r db.Reader, disk *api.VDI) error {
	layers, err := chain(r, disk)
	if err == nil && len(layers) >= maxChain {
		return backend(backendChainTooLong, chainTooLong)
	}
	return err
}

const chainTooLong = "The snapshot chain is too long"

// opens refuses a disk of which a domain would open more layers than it can.
func opens(r db.Reader, disk *api.VDI, writable bool) error {
	top := disk
	_, scratch := scratchOf(r, disk)
	reset := writable && disk.OnBoot == api.OnBootReset
	if reset && scratch != nil {
		top = scratch
	}
	layers, err := chain(r, top)
	n := len(layers)
	if reset && scratch == nil {
		n++
	}
	if err == nil && n > maxChain {
		return backend(backendChainTooLong, fmt.Sprintf("%s [opterr=VDI %s would be opened as %d volumes, %d can be]", chainTooLong, disk.UUID, n, maxChain))
	}
	return err
}

// mayGrow refuses a layer too many before a merge, which would make room, gives way.
func (m *Manager) mayGrow(vdi api.VDIRef, op api.VDIOperations) error {
	if op != api.VDIOperationsSnapshot && op != api.VDIOperationsClone && op != api.VDIOperationsRevertFrom {
		return nil
	}
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return err
	}
	return deep(snap, disk)
}
