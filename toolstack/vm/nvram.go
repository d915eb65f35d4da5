package vm

import (
	"context"
	"errors"
	"fmt"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// What a VM's firmware and TPM remember lies on the host, in files by the VM's uuid
// that libvirt makes and Hypervisor.Erase removes. A VM made of another gets copies
// under its own uuid before the transaction that writes its row: drafts until then,
// which a process that finds them keeps if there is such a row and else drops. A
// revert overwrites the VM's with the snapshot's as it does with the disks'.

// NVRAM is that side of hostd; *client.Client is one. What the methods promise is
// said there.
type NVRAM interface {
	CopyNVRAM(ctx context.Context, to string, what client.NVRAM) error
	KeepNVRAM(ctx context.Context, uuid string) error
	DropNVRAM(ctx context.Context, uuid string) error
	DraftNVRAM(ctx context.Context) ([]string, error)
}

var _ NVRAM = (*client.Client)(nil)

// remembered is what of a VM's is copied. A TPM that is unique is not: its copy
// begins with an empty one.
func remembered(r db.Reader, vm *api.VM) client.NVRAM {
	what := client.NVRAM{From: vm.UUID, Variables: vm.HVMBootParams[firmwareKey] == string(hypervisor.UEFI)}
	for _, ref := range vm.VTPMs {
		if tpm, err := db.Get(r, ref); err == nil && !tpm.IsUnique {
			what.TPM = true
		}
	}
	return what
}

// heir is a VM that is being made of another.
type heir struct {
	m    *Manager
	uuid string
	copy bool // there is a draft
}

// inherit copies what a VM remembers to the uuid of one that is about to be made.
func (m *Manager) inherit(ctx context.Context, ref api.VMRef) (*heir, error) {
	h := &heir{m: m, uuid: api.NewUUID()}
	snap := m.cfg.DB.Snapshot()
	vm, err := db.Get(snap, ref)
	if err != nil {
		return nil, err
	}
	what := remembered(snap, vm)
	if h.copy = m.cfg.NVRAM != nil && (what.Variables || what.TPM); !h.copy {
		return h, nil
	}
	what.Draft = true
	if err := m.cfg.NVRAM.CopyNVRAM(ctx, h.uuid, what); err != nil {
		h.end(ctx)
		return nil, fmt.Errorf("vm %s: what its firmware remembers: %w", vm.UUID, unanswered(m.siteOf(vm), err))
	}
	return h, nil
}

// unanswered gives clients a name for a hostd that is dead; what one refuses it says
// itself.
func unanswered(s *Site, err error) error {
	var refused *client.Error
	if errors.As(err, &refused) {
		return err
	}
	return errors.Join(api.ErrHostOffline(s.ref().String()), err)
}

// end keeps the copy where the transaction that makes the VM took place, or drops it.
// What fails here the next process does.
func (h *heir) end(ctx context.Context) {
	if h == nil || !h.copy {
		return
	}
	ctx, cancel := finishing(ctx)
	defer cancel()
	_, err := db.ByUUID[api.VM](h.m.cfg.DB.Snapshot(), h.uuid)
	do, made := h.m.cfg.NVRAM.DropNVRAM, err == nil
	if made {
		do = h.m.cfg.NVRAM.KeepNVRAM
	}
	if err := do(ctx, h.uuid); err != nil {
		h.m.cfg.Log.Warn("nvram-later", "uuid", h.uuid, "made", made, "err", err)
	}
}

// recoverNVRAM ends what a former process left as drafts. It belongs before the
// first request: later drafts are this process's own.
func (m *Manager) recoverNVRAM(ctx context.Context) {
	if m.cfg.NVRAM == nil {
		return
	}
	drafts, err := m.cfg.NVRAM.DraftNVRAM(ctx)
	if err != nil {
		m.cfg.Log.Warn("nvram-later", "err", err)
	}
	for _, uuid := range drafts {
		(&heir{m: m, uuid: uuid, copy: true}).end(ctx)
	}
}

// revertNVRAM makes a VM, which does not run, remember what its snapshot does.
func (m *Manager) revertNVRAM(ctx context.Context, ref api.VMRef, s *api.VM) error {
	snap := m.cfg.DB.Snapshot()
	vm, err := db.Get(snap, ref)
	what := remembered(snap, s)
	if err == nil && len(s.VTPMs) == 0 && len(vm.VTPMs) > 0 {
		what.TPM = true // which goes, with its secrets
	}
	if err != nil || m.cfg.NVRAM == nil || !what.Variables && !what.TPM {
		return err
	}
	return m.cfg.NVRAM.CopyNVRAM(ctx, vm.UUID, what)
}
