package device_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/console"
	"cairn/toolstack/db"
	"cairn/toolstack/device"
	"cairn/toolstack/device/devicetest"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire/wiretest"
)

// stack is the API with machines and their devices on a fake host, a repository,
// a network, and one machine.
type stack struct {
	*wiretest.Server
	hv      *hypervisor.Fake
	at      *devicetest.Host
	host    api.HostRef
	sr      api.SRRef
	network api.NetworkRef
	vm      api.VMRef
	devices *device.Manager
	looked  func() // after the hardware of a domain was looked at; nil is nothing
}

// slowLook lets things happen between a look at a domain and what is made of it.
type slowLook struct {
	*hypervisor.Fake
	s *stack
}

func (l slowLook) Hardware(ctx context.Context, uuid string) (hypervisor.Hardware, error) {
	hw, err := l.Fake.Hardware(ctx, uuid)
	if f := l.s.looked; f != nil {
		l.s.looked = nil
		f()
	}
	return hw, err
}

type fakeHost struct{ ref api.HostRef }

func (h fakeHost) Ref() api.HostRef              { return h.ref }
func (fakeHost) AwaitKind(context.Context) error { return nil }
func (fakeHost) Kind() (hypervisor.Kind, bool)   { return hypervisor.Accelerated, true }
func (fakeHost) GuestMemory() int64              { return 4 << 30 }
func (fakeHost) Address() string                 { return "192.0.2.1" }
func (fakeHost) Boot() string                    { return "first" }

func newStack(t *testing.T) *stack {
	t.Helper()
	s := &stack{hv: hypervisor.NewFake(), at: devicetest.New(), host: api.NewRef[api.Host]()}
	guests := t.TempDir()
	if err := os.WriteFile(filepath.Join(guests, "vmlinuz"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var vms *vm.Manager
	s.Server = wiretest.New(t, func(r *api.Registry, d *db.DB) {
		s.devices = device.New(device.Config{
			DB: d, Storage: s.at, Network: s.at,
			Hypervisor: func(h api.HostRef) hypervisor.Hypervisor {
				if h != s.host {
					return nil
				}
				return slowLook{s.hv, s}
			},
		})
		s.devices.Register(r)
		vms = vm.New(vm.Config{
			DB: d, Hypervisor: s.hv, Consoles: console.New(d, s.hv, nil), Host: fakeHost{s.host},
			Devices: s.devices, GuestDir: guests,
		})
		vms.Register(r)
	})
	s.at.Bridge = func(ref api.VIFRef) string {
		v := wiretest.Get(s.Server, ref)
		return wiretest.Get(s.Server, v.Network).Bridge
	}
	s.rows(guests)
	ctx, cancel := context.WithCancel(t.Context())
	ready, done := make(chan struct{}), make(chan struct{})
	go func() { defer close(done); _ = vms.Run(ctx, func() { close(ready) }) }()
	t.Cleanup(func() { cancel(); <-done })
	<-ready
	return s
}

// rows writes the host and what is around it.
func (s *stack) rows(guests string) {
	h := api.NewHost()
	h.UUID, h.Enabled = api.NewUUID(), true
	if err := s.DB.Update(context.Background(), func(tx *db.Tx) error { db.InsertAs(tx, s.host, h); return nil }); err != nil {
		s.T.Fatal(err)
	}
	s.sr = wiretest.Insert(s.Server, &api.SR{Type: "ext"})
	wiretest.Insert(s.Server, &api.PBD{Host: s.host, SR: s.sr, CurrentlyAttached: true})
	s.network = wiretest.Insert(s.Server, &api.Network{Bridge: "xapi0", MTU: 1500})
	s.vm = s.machine("one", guests)
}

func (s *stack) machine(name, guests string) api.VMRef {
	v := api.NewVM()
	v.UUID, v.NameLabel, v.PowerState = api.NewUUID(), name, api.VMPowerStateHalted
	v.PVKernel, v.VCPUsMax, v.VCPUsAtStartup = guests+"/vmlinuz", 2, 1
	v.MemoryStaticMax, v.MemoryDynamicMax, v.MemoryDynamicMin = 64<<20, 64<<20, 64<<20
	v.OtherConfig = map[string]string{"mac_seed": "5b6c1bb4-0dd6-4a37-9e9c-0d1f24bd9f1c"}
	v.Metrics = wiretest.Insert(s.Server, &api.VMMetrics{})
	return wiretest.Insert(s.Server, v)
}

// vdi is a new disk.
func (s *stack) vdi(edit ...func(*api.VDI)) api.VDIRef {
	v := api.NewVDI()
	v.UUID, v.SR, v.Managed, v.VirtualSize = api.NewUUID(), s.sr, true, 1<<20
	for _, e := range edit {
		e(v)
	}
	return wiretest.Insert(s.Server, v)
}

// drive is the arguments of VBD.create.
func drive(vm api.VMRef, vdi api.VDIRef, userdevice string) map[string]any {
	return map[string]any{
		"VM": vm.String(), "VDI": vdi.String(), "userdevice": userdevice, "bootable": false, "mode": "RW", "type": "Disk",
		"empty": vdi.IsNull(), "unpluggable": true, "other_config": map[string]string{},
		"qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	}
}

func cd(vm api.VMRef, vdi api.VDIRef, userdevice string) map[string]any {
	d := drive(vm, vdi, userdevice)
	d["type"], d["mode"] = "CD", "RO"
	return d
}

func (s *stack) vbd(args map[string]any) (ref api.VBDRef) {
	s.T.Helper()
	s.Must(&ref, "VBD.create", args)
	return ref
}

// nic is the arguments of VIF.create.
func (s *stack) nic(device string) map[string]any {
	return map[string]any{
		"VM": s.vm.String(), "network": s.network.String(), "device": device, "MAC": "", "MTU": "1500",
		"other_config": map[string]string{}, "qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	}
}

func (s *stack) vif(device string) (ref api.VIFRef) {
	s.T.Helper()
	s.Must(&ref, "VIF.create", s.nic(device))
	return ref
}

func (s *stack) start() {
	s.T.Helper()
	s.Must(nil, "VM.start", s.vm.String(), false, false)
}

// hardware is what the domain has.
func (s *stack) hardware() hypervisor.Hardware {
	s.T.Helper()
	hw, err := s.hv.Hardware(context.Background(), wiretest.Get(s.Server, s.vm).UUID)
	if err != nil && !errors.Is(err, hypervisor.ErrNotFound) {
		s.T.Fatal(err)
	}
	return hw
}

// holds checks what is attached and plugged on the host.
func (s *stack) holds(what string, disks []api.VDIRef, ports []api.VIFRef) {
	s.T.Helper()
	slices.Sort(disks)
	slices.Sort(ports)
	if got := s.at.Disks(); !slices.Equal(got, disks) {
		s.T.Errorf("%s: the host has the disks %v, want %v", what, got, disks)
	}
	if got := s.at.Ports(); !slices.Equal(got, ports) {
		s.T.Errorf("%s: the host has the ports %v, want %v", what, got, ports)
	}
}

// agrees checks that rows and domain say the same.
func (s *stack) agrees(what string) {
	s.T.Helper()
	hw := s.hardware()
	r := wiretest.Get(s.Server, s.vm)
	for _, ref := range r.VBDs {
		v := wiretest.Get(s.Server, ref)
		d, there := hw.Disk(v.UUID)
		if there != v.CurrentlyAttached || there && (d.Source == nil) != v.Empty || len(v.CurrentOperations) > 0 {
			s.T.Errorf("%s: VBD %s attached %v empty %v doing %v; the domain has %v %v", what, v.Userdevice, v.CurrentlyAttached, v.Empty, v.CurrentOperations, there, d)
		}
	}
	for _, ref := range r.VIFs {
		v := wiretest.Get(s.Server, ref)
		if _, there := hw.NIC(v.UUID); there != v.CurrentlyAttached || len(v.CurrentOperations) > 0 {
			s.T.Errorf("%s: VIF %s attached %v doing %v; the domain has %v", what, v.Device, v.CurrentlyAttached, v.CurrentOperations, there)
		}
	}
}
