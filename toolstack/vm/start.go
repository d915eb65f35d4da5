package vm

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/memory"
)

func (m *Manager) start(c *api.Call, ref api.VMRef, startPaused, _ bool) error {
	return m.startAs(c, ref, "", api.VMOperationsStart, startPaused)
}

func (m *Manager) startOn(c *api.Call, ref api.VMRef, host api.HostRef, startPaused, _ bool) error {
	if _, err := db.Get(m.cfg.DB.Snapshot(), host); err != nil {
		return err
	}
	return m.startAs(c, ref, host, api.VMOperationsStartOn, startPaused)
}

// startAs starts a VM on the wanted host, or with none wanted on the best one.
func (m *Manager) startAs(c *api.Call, ref api.VMRef, want api.HostRef, op api.VMOperations, startPaused bool) error {
	sites, err := m.reachable(want)
	if err != nil {
		return err
	}
	if err := awaitKinds(c, sites); err != nil {
		return err
	}
	var spec hypervisor.Spec
	o, err := m.begin(c, ref, op, func(tx *db.Tx, vm *api.VM) (err error) {
		if spec, err = m.specOf(ref, vm, sites); err != nil {
			return err
		}
		site, err := m.place(tx, capable(sites), ref, vm, op)
		if err != nil {
			return err
		}
		spec.Kind, _ = site.Host.Kind()
		vm.ScheduledToBeResidentOn = site.ref() // holds the memory from here on
		wantedVTPM(tx, ref, vm)
		return nil
	})
	if err != nil {
		return err
	}
	c.Task.Set(0.1)
	err = m.bringUp(c, o, spec, startPaused)
	return o.end(c, hvError(o.vm, err), func(tx *db.Tx, vm *api.VM) error {
		vm.ScheduledToBeResidentOn = ""
		if err != nil {
			return nil
		}
		return m.recordStarted(tx, o.site, ref, vm, startPaused)
	})
}

// launch makes the domain and lets it go. The console is attached in between, so
// not a byte of the guest's is missed. Without success no domain is left; certain
// is false where one may still be there, or appear.
func (m *Manager) launch(ctx context.Context, site *Site, spec hypervisor.Spec, startPaused bool) (certain bool, err error) {
	m.forgetStop(spec.UUID) // of the domain before
	err = site.Hypervisor.Start(ctx, spec, true)
	if err == nil {
		m.pardon(spec.UUID) // libvirt knows one domain of a UUID: this one
		if cerr := m.cfg.Consoles.Renew(ctx, spec.UUID); cerr != nil {
			m.cfg.Log.Warn("console-attach", "uuid", spec.UUID, "err", cerr)
		}
		if !startPaused {
			err = site.Hypervisor.Resume(ctx, spec.UUID)
		}
	} else if !errors.Is(err, hypervisor.ErrUnknownOutcome) {
		// There is no domain of this start. One that is there already, as of a start that
		// was given up, may have the devices still: the reconciler sees to both.
		return !errors.Is(err, hypervisor.ErrExists), err
	}
	if err == nil {
		return true, nil
	}
	return m.rollBack(ctx, site, spec.UUID, errors.Is(err, hypervisor.ErrUnknownOutcome)), err
}

// rollBack ends a domain whose start is answered with an error. Where that is
// not possible now, the reconciler does it. A start whose outcome is unknown may
// still be under way: that no domain is there yet does not mean that none will be.
func (m *Manager) rollBack(ctx context.Context, site *Site, uuid string, unknown bool) (certain bool) {
	m.doom(uuid)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
	defer cancel()
	err := site.Hypervisor.Destroy(ctx, uuid)
	switch {
	case err == nil, !unknown && errors.Is(err, hypervisor.ErrNotFound):
		m.pardon(uuid)
		return true
	default:
		m.cfg.Log.Warn("vm-start-undo-later", "uuid", uuid, "err", err)
		return false
	}
}

// doomTime is how long after its start was given up a domain may still appear and
// is ended then.
const doomTime = time.Hour

func (m *Manager) doom(uuid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.doomed[uuid] = time.Now().Add(doomTime)
}

// pardon is for a domain that is gone for certain, or was started anew.
func (m *Manager) pardon(uuid string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.doomed, uuid)
}

// overhead is QEMU's own need beside the guest's memory.
func overhead(static, vcpus int64) int64 { return memory.Overhead(static, vcpus) }

// specOf says which domain a VM wants, or why it cannot have one on any of the
// sites. Its kind is the first one's.
func (m *Manager) specOf(ref api.VMRef, vm *api.VM, sites []*Site) (hypervisor.Spec, error) {
	able := capable(sites)
	if len(able) == 0 {
		return hypervisor.Spec{}, api.ErrVMHvmRequired(ref.String())
	}
	kind, _ := able[0].Host.Kind()
	err := CheckSizes(vm)
	if err != nil {
		return hypervisor.Spec{}, err
	}
	spec := hypervisor.Spec{
		UUID: vm.UUID, Title: vm.NameLabel, Kind: kind, Machine: machineOf(vm),
		MemoryBytes: vm.MemoryStaticMax, MemoryTargetBytes: targetOf(vm), VCPUs: int(vm.VCPUsAtStartup), VCPUsMax: int(vm.VCPUsMax),
		RebootDestroys: vm.ActionsAfterReboot == api.OnNormalExitDestroy,
	}
	if !slices.Contains(hypervisor.Machines, spec.Machine) {
		return hypervisor.Spec{}, api.ErrValueNotSupported("platform:"+machineKey, spec.Machine, "must be one of "+strings.Join(hypervisor.Machines, ", "))
	}
	for _, key := range []string{nicModelKey, diskBusKey} {
		if value, ok := vm.Platform[key]; ok && checkPlatform(nil, key, value) != nil {
			return hypervisor.Spec{}, api.ErrInvalidValue("platform:"+key, value)
		}
	}
	if err := m.bootOf(vm, &spec); err != nil {
		return hypervisor.Spec{}, err
	}
	spec.CoresPerSocket, err = coresPerSocket(vm)
	return spec, err
}

// machineKey of VM.platform pins the machine type for the VM's whole life.
const machineKey = "machine-type"

func machineOf(vm *api.VM) string {
	if t := vm.Platform[machineKey]; t != "" {
		return t
	}
	return hypervisor.DefaultMachine
}

// recordStarted makes the row say what now runs.
func (m *Manager) recordStarted(tx *db.Tx, site *Site, ref api.VMRef, vm *api.VM, paused bool) error {
	vm.PowerState = api.VMPowerStateRunning
	if paused {
		vm.PowerState = api.VMPowerStatePaused
	}
	vm.ResidentOn = site.ref()
	vm.LastBootCPUFlags = nil
	vm.MemoryTarget = targetOf(vm)
	if err := m.recordMetrics(tx, vm); err != nil {
		return err
	}
	if err := m.cfg.Devices.Started(tx, ref); err != nil {
		return err
	}
	recordConsoles(tx, site, ref, vm)
	recordGuest(tx, vm)
	return nil
}

func (m *Manager) recordMetrics(tx *db.Tx, vm *api.VM) error {
	metrics, err := db.Edit(tx, vm.Metrics)
	if err != nil { // a row from elsewhere may lack it
		fresh := newMetrics()
		vm.Metrics = db.Insert(tx, fresh)
		if metrics, err = db.Edit(tx, vm.Metrics); err != nil {
			return err
		}
	}
	now := time.Now().UTC()
	metrics.StartTime, metrics.LastUpdated = now, now
	metrics.MemoryActual, metrics.VCPUsNumber = vm.MemoryStaticMax, vm.VCPUsAtStartup
	metrics.Hvm, metrics.CurrentDomainType = true, vm.DomainType
	return nil
}

// recordConsoles gives a running VM the rows of its consoles: a terminal, and a
// screen where firmware draws one. The location names the row, as clients fetch
// it from there.
func recordConsoles(tx *db.Tx, site *Site, ref api.VMRef, vm *api.VM) {
	protocols := []api.ConsoleProtocol{api.ConsoleProtocolVt100}
	if vm.HVMBootPolicy != "" {
		protocols = []api.ConsoleProtocol{api.ConsoleProtocolRfb, api.ConsoleProtocolVt100}
	}
	for _, console := range vm.Consoles {
		if c, err := db.Get(tx, console); err == nil {
			protocols = slices.DeleteFunc(protocols, func(p api.ConsoleProtocol) bool { return p == c.Protocol })
		}
	}
	for _, p := range protocols {
		c := api.NewConsole()
		c.UUID, c.VM, c.Protocol = api.NewUUID(), ref, p
		c.Location = fmt.Sprintf("https://%s/console?uuid=%s", site.Host.Address(), c.UUID)
		db.Insert(tx, c)
	}
}

// recordHalted makes the row say that nothing runs.
func (m *Manager) recordHalted(tx *db.Tx, ref api.VMRef, vm *api.VM) error {
	vm.PowerState = api.VMPowerStateHalted
	vm.ResidentOn, vm.ScheduledToBeResidentOn = "", ""
	vm.Domid = -1
	if err := m.cfg.Devices.Stopped(tx, ref); err != nil {
		return err
	}
	if err := m.dropImage(tx, vm); err != nil {
		return err
	}
	return m.recordAway(tx, ref, vm)
}

// recordAway takes away what a VM has only while there is a domain.
func (m *Manager) recordAway(tx *db.Tx, ref api.VMRef, vm *api.VM) error {
	for console, c := range db.All[api.Console](tx) {
		if c.VM == ref {
			if err := db.Delete(tx, console); err != nil {
				return err
			}
		}
	}
	if metrics, err := db.Edit(tx, vm.Metrics); err == nil {
		metrics.MemoryActual, metrics.LastUpdated = 0, time.Now().UTC()
	}
	told := vm.GuestMetrics
	vm.GuestMetrics = ""
	return deleteIfThere(tx, told)
}

// hvError turns an error of the hypervisor into one of the API where there is
// one that says the same.
func hvError(ref api.VMRef, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, hypervisor.ErrNotFound):
		return api.ErrVMHalted(ref.String())
	case errors.Is(err, hypervisor.ErrExists):
		return api.ErrOperationNotAllowed("a domain of this VM runs already: " + err.Error())
	default:
		return err
	}
}

func (m *Manager) assertCanBootHere(_ *api.Call, ref api.VMRef, host api.HostRef) error {
	vm, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return err
	}
	site := m.site(host)
	if site == nil {
		return api.ErrHostOffline(host.String())
	}
	sites := []*Site{site}
	if _, err = m.specOf(ref, vm, sites); err != nil {
		return err
	}
	_, err = m.place(m.cfg.DB.Snapshot(), sites, ref, vm, api.VMOperationsStartOn)
	return err
}

func (m *Manager) getPossibleHosts(c *api.Call, ref api.VMRef) ([]api.HostRef, error) {
	var possible []api.HostRef
	var why error
	for _, s := range m.sites {
		if err := m.assertCanBootHere(c, ref, s.ref()); err != nil {
			why = err
			continue
		}
		possible = append(possible, s.ref())
	}
	if len(possible) == 0 {
		return nil, why
	}
	return possible, nil
}
