package life

import (
	"context"
	"fmt"
	"testing"
	"time"

	"cairn/ci/lab/demo"
	"cairn/toolstack/client"
)

// API calls the host and fails the test on an error.
type API struct {
	T testing.TB
	*client.Client
}

func (a API) Call(ctx context.Context, out any, method string, args ...any) {
	a.T.Helper()
	start := time.Now()
	if err := a.Client.Call(ctx, method, out, args...); err != nil {
		a.T.Fatalf("%s: %v", method, err)
	}
	a.T.Logf("%s took %s", method, time.Since(start).Round(time.Millisecond))
}

// Ref is a call that answers a reference.
func (a API) Ref(ctx context.Context, method string, args ...any) (ref string) {
	a.T.Helper()
	a.Call(ctx, &ref, method, args...)
	return ref
}

// Text is a call that answers text.
func (a API) Text(ctx context.Context, method string, args ...any) string {
	a.T.Helper()
	return a.Ref(ctx, method, args...)
}

// First is a call that answers a set of references, of which there is one.
func (a API) First(ctx context.Context, method string, args ...any) string {
	a.T.Helper()
	var refs []string
	a.Call(ctx, &refs, method, args...)
	if len(refs) != 1 {
		a.T.Fatalf("%s answered %d objects, want one", method, len(refs))
	}
	return refs[0]
}

// Bootable makes a VM without disks that boots from its CD by UEFI.
func (a API) Bootable(ctx context.Context, name string) *demo.Guest {
	a.T.Helper()
	const memory = 512 << 20
	vm := a.Ref(ctx, "VM.clone", a.First(ctx, "VM.get_by_name_label", "Debian Trixie 13"), name)
	a.Call(ctx, nil, "VM.remove_from_other_config", vm, "disks")
	a.Call(ctx, nil, "VM.provision", vm)
	a.Call(ctx, nil, "VM.set_memory_limits", vm, memory, memory, memory, memory)
	a.Call(ctx, nil, "VM.set_HVM_boot_params", vm, map[string]string{"firmware": "uefi", "order": "d"})
	return demo.Attach(a.Client, &demo.Guest{Name: name, Ref: vm})
}

// Repository makes a storage repository of a host and makes it the
// pool's default.
func (a API) Repository(ctx context.Context, kind string, config map[string]string) string {
	a.T.Helper()
	host, pool := a.First(ctx, "host.get_all"), a.First(ctx, "pool.get_all")
	sr := a.Ref(ctx, "SR.create", host, config, "0", "local "+kind, "", kind, "user", false, map[string]string{})
	a.Call(ctx, nil, "pool.set_default_SR", pool, sr)
	a.Call(ctx, nil, "pool.set_suspend_image_SR", pool, sr)
	return sr
}

// Network makes a network without an uplink.
func (a API) Network(ctx context.Context, name string) string {
	a.T.Helper()
	return a.Ref(ctx, "network.create", map[string]any{
		"name_label": name, "name_description": "", "MTU": "1500", "other_config": map[string]string{}, "bridge": "", "managed": true,
	})
}

// Disk makes a disk and returns its reference and serial number.
func (a API) Disk(ctx context.Context, sr, name string, bytes int64) (ref, serial string) {
	a.T.Helper()
	ref, err := a.NewDisk(ctx, sr, name, bytes)
	must(a.T, err)
	return ref, a.Text(ctx, "VDI.get_uuid", ref)
}

// NewDisk is Disk for any goroutine.
func (a API) NewDisk(ctx context.Context, sr, name string, bytes int64) (ref string, err error) {
	err = a.Client.Call(ctx, "VDI.create", &ref, map[string]any{
		"name_label": name, "name_description": "", "SR": sr, "virtual_size": fmt.Sprint(bytes), "type": "user",
		"sharable": false, "read_only": false, "other_config": map[string]string{},
	})
	return ref, err
}

// Drive joins a disk to a machine.
func (a API) Drive(ctx context.Context, vm, vdi, userdevice, kind string) string {
	a.T.Helper()
	return a.Ref(ctx, "VBD.create", drive(vm, vdi, userdevice, kind))
}

// NIC joins a machine to a network.
func (a API) NIC(ctx context.Context, vm, network, device string) string {
	a.T.Helper()
	return a.Ref(ctx, "VIF.create", nic(vm, network, device))
}

func drive(vm, vdi, userdevice, kind string) map[string]any {
	mode := "RW"
	if kind == "CD" {
		mode = "RO"
	}
	return map[string]any{
		"VM": vm, "VDI": vdi, "userdevice": userdevice, "bootable": kind == "CD", "mode": mode, "type": kind,
		"unpluggable": true, "empty": vdi == "OpaqueRef:NULL", "other_config": map[string]string{},
		"qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	}
}

func nic(vm, network, device string) map[string]any {
	return map[string]any{
		"VM": vm, "network": network, "device": device, "MAC": "", "MTU": "1500", "other_config": map[string]string{},
		"qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	}
}

// emptyLimit is how long layers that nobody needs may stay.
const emptyLimit = time.Minute

// Empty waits until a repository holds nothing: layers that machines leave behind
// are removed soon after.
func (a API) Empty(ctx context.Context, sr string) {
	a.T.Helper()
	ctx, cancel := context.WithTimeout(ctx, emptyLimit)
	defer cancel()
	a.Until(ctx, "an empty repository", []string{"vdi"}, func() bool { return len(a.vdis(ctx, sr)) == 0 })
}

// Clear destroys a halted machine with its snapshots, and a repository with all that
// is in it.
func (a API) Clear(ctx context.Context, vm, sr string) {
	a.T.Helper()
	var machines []string
	a.Call(ctx, &machines, "VM.get_snapshots", vm)
	for _, vm := range append(machines, vm) {
		a.Call(ctx, nil, "VM.destroy", vm)
	}
	for _, vdi := range a.vdis(ctx, sr) {
		if err := a.Client.Call(ctx, "VDI.destroy", nil, vdi); err != nil && !client.IsCode(err, "HANDLE_INVALID") && !client.IsCode(err, "VDI_NOT_MANAGED") { // layers go by themselves
			a.T.Errorf("VDI.destroy: %v", err)
		}
	}
	a.Empty(ctx, sr)
	a.Call(ctx, nil, "PBD.unplug", a.First(ctx, "SR.get_PBDs", sr))
	a.Call(ctx, nil, "SR.destroy", sr)
}

func (a API) vdis(ctx context.Context, sr string) (all []string) {
	a.T.Helper()
	a.Call(ctx, &all, "SR.get_VDIs", sr)
	return all
}
