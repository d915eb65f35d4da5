package hostd

import (
	"context"
	"os"
	"slices"
	"sync"
	"time"

	"cairn/init/hostd/client"
)

// kvmDelay is how long KVM's module waits for somebody to want it. Loading it
// keeps a processor busy while the services on the way to the API start.
const kvmDelay = 15 * time.Second

// kvm is the outcome of the one attempt to load KVM's module. loaded is closed
// after it; until then nobody can say whether KVM is usable.
type kvm struct {
	once   sync.Once
	wanted chan struct{}
	loaded chan struct{}
	err    error
}

func newKVM() *kvm { return &kvm{wanted: make(chan struct{}), loaded: make(chan struct{})} }

// want says that somebody is about to run guests.
func (k *kvm) want() { k.once.Do(func() { close(k.wanted) }) }

// await returns when the module is wanted, or it is time anyway.
func (k *kvm) await(ctx context.Context, delay time.Duration) {
	select {
	case <-k.wanted:
	case <-time.After(delay):
	case <-ctx.Done():
	}
}

// kvmModule is the module for a processor, or empty where no flag says that it
// has hardware virtualization. The device file alone proves nothing: there are
// machines where it opens and no guest runs.
func kvmModule(flags []string) string {
	switch {
	case slices.Contains(flags, "vmx"):
		return "kvm_intel"
	case slices.Contains(flags, "svm"):
		return "kvm_amd"
	}
	return ""
}

// guestModules are what guests' NICs need: no hardware asks for them, so udevd
// does not load them.
var guestModules = []string{"tun", "vhost_net"}

// buttonModules make the power button work before udevd gets to it.
var buttonModules = []string{"evdev", "button"}

func (h *Host) loadKVM(ctx context.Context) {
	if module := kvmModule(h.inventory().CPU().Flags); module != "" {
		if h.kvm.err = h.System.LoadModule(module); h.kvm.err == nil {
			h.kvm.err = h.admitQEMU(ctx)
		}
	}
	close(h.kvm.loaded)
}

// admitQEMU gives KVM's device to those who run guests, and says so once more in another
// second. libvirt remembers whether they may use it, by the second in which the device
// last changed: had it looked between the device's appearance and this, it would believe
// for ever that no guest can run. udevd, which does the same, comes whenever it has time.
func (h *Host) admitQEMU(ctx context.Context) error {
	if err := h.System.Admit(h.Paths.KVM, qemuGroup); err != nil {
		return err
	}
	select {
	case <-time.After(time.Second):
	case <-ctx.Done():
	}
	return h.System.Admit(h.Paths.KVM, qemuGroup)
}

// loadDrivers loads what the host itself needs before udevd has come to it: the
// NICs it is managed through, then what runs guests. One after another, because
// each takes a processor of a small machine for itself.
func (h *Host) loadDrivers(ctx context.Context) {
	// Before the NICs: one that shows up is put into its bridge at once.
	if err := h.System.LoadModule("bridge"); err != nil {
		h.Log.Warn("module-missing", "name", "bridge", "err", err)
	}
	if err := h.System.LoadNICs(); err != nil {
		h.Log.Warn("nic-drivers", "err", err)
	}
	h.kvm.await(ctx, kvmDelay)
	if ctx.Err() != nil {
		return
	}
	for _, module := range buttonModules {
		if err := h.System.LoadModule(module); err != nil {
			h.Log.Warn("module-missing", "name", module, "err", err)
		}
	}
	h.loadKVM(ctx)
	h.reportKVM()
}

// reportKVM says how that went, and loads what else guests need.
func (h *Host) reportKVM() {
	for _, module := range guestModules {
		if err := h.System.LoadModule(module); err != nil {
			h.Log.Warn("module-missing", "name", module, "err", err)
		}
	}
	if reason := h.noKVM(); reason != "" {
		h.Log.Warn("kvm-missing", "reason", reason)
	} else {
		h.Log.Info("kvm-usable")
	}
	h.refreshBanner()
}

// kvmState says whether KVM is usable now, as far as that is known.
func (h *Host) kvmState() client.KVM {
	select {
	case <-h.kvm.loaded:
		reason := h.noKVM()
		return client.KVM{Usable: reason == "", Reason: reason}
	default:
		return client.KVM{Pending: true, Reason: "the kernel module is still being loaded"}
	}
}

// noKVM is why KVM cannot be used, or empty. To be called after loadKVM's try.
func (h *Host) noKVM() string {
	if kvmModule(h.inventory().CPU().Flags) == "" {
		return "the processor offers no hardware virtualization (neither vmx nor svm); it may be disabled in the firmware"
	}
	f, err := os.OpenFile(h.Paths.KVM, os.O_RDWR, 0)
	if err == nil {
		err = f.Close()
	} else if h.kvm.err != nil {
		err = h.kvm.err // why the device is not there
	}
	if err != nil {
		return err.Error()
	}
	return ""
}
