package hostd

import (
	"net/http"

	"golang.org/x/sys/unix"

	"cairn/init/hostd/client"
	"cairn/init/storage"
)

func (h *Host) getInventory(w http.ResponseWriter, _ *http.Request) {
	s := h.inventory()
	h.answer(w, client.Inventory{
		CPU: s.CPU(), KVM: h.kvmState(), Memory: s.Memory(), NICs: s.NICs(), Disks: s.Disks(h.storage.BootDisk),
		Product: s.Product(), BIOS: s.BIOS(), IOMMU: s.IOMMU(), SecureBoot: s.SecureBoot(), Hostname: h.keeper.get().Document.Hostname,
		State: stateAnswer(h.storage.State),
	})
}

func stateAnswer(o storage.Outcome) client.State {
	s := client.State{Kind: string(o.Kind), Device: o.Device}
	if o.Err != nil {
		s.Reason = o.Err.Error()
	}
	return s
}

func (h *Host) getVersion(w http.ResponseWriter, _ *http.Request) {
	h.answer(w, client.Version{API: apiVersion, Product: h.productVersion(), Kernel: kernelRelease()})
}

func kernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}
