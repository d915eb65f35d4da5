package sim

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strconv"
	"time"

	"github.com/google/uuid"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// perTransaction is how many VMs, with what belongs to them, are written at once.
const perTransaction = 500

func (p *Pool) random() *rand.Rand { return rand.New(rand.NewPCG(p.cfg.Seed, 1)) }

// filler writes the rows of a pool.
type filler struct {
	cfg    Config
	random *rand.Rand
	own    api.HostRef

	hosts    []api.HostRef
	networks []api.NetworkRef
	shared   []api.SRRef
	local    []api.SRRef // by host
}

// fill makes the pool, unless that is done.
func (f *filler) fill(ctx context.Context, d *db.DB) error {
	own, err := db.Get(d.Snapshot(), f.own)
	if err != nil {
		return err
	}
	if own.OtherConfig[indexKey] != "" {
		return nil // the last transaction marks them all
	}
	for ref := range db.All[api.Host](d.Snapshot()) {
		if ref != f.own {
			return errors.New("an earlier run did not finish it; start afresh")
		}
	}
	if err := d.Update(ctx, f.infrastructure); err != nil {
		return err
	}
	for n := 0; n < f.cfg.VMs; n += perTransaction {
		err := d.Update(ctx, func(tx *db.Tx) error {
			for i := n; i < min(n+perTransaction, f.cfg.VMs); i++ {
				f.vm(tx, i)
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return d.Update(ctx, f.mark)
}

// mark numbers the hosts, which says that the pool is whole.
func (f *filler) mark(tx *db.Tx) error {
	for i, ref := range f.hosts {
		h, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		h.OtherConfig = maps.Clone(h.OtherConfig)
		h.OtherConfig[indexKey] = strconv.Itoa(i)
	}
	return nil
}

// uuid is the seed's next one.
func (f *filler) uuid() string {
	var b [16]byte
	binary.LittleEndian.PutUint64(b[:], f.random.Uint64())
	binary.LittleEndian.PutUint64(b[8:], f.random.Uint64())
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80 // version 4, as all others are
	return uuid.UUID(b).String()
}

// add writes a record with the seed's uuid and reference.
func add[T any, P api.RecordPtr[T]](f *filler, tx *db.Tx, r *T) api.Ref[T] {
	ref := api.Ref[T]("OpaqueRef:" + f.uuid())
	P(r).SetUUID(f.uuid())
	db.InsertAs[T, P](tx, ref, r)
	return ref
}

// infrastructure makes the hosts with their networks and storage.
func (f *filler) infrastructure(tx *db.Tx) error {
	if err := f.pool(tx); err != nil {
		return err
	}
	for i := range nics {
		f.networks = append(f.networks, f.network(tx, i))
	}
	for i := range 1 + f.cfg.Hosts/32 {
		sr := newSR(fmt.Sprintf("Shared storage %d", i+1), "file", 64<<40)
		sr.Shared = true
		f.shared = append(f.shared, add(f, tx, sr))
	}
	for i := range f.cfg.Hosts {
		if err := f.host(tx, i); err != nil {
			return err
		}
	}
	return nil
}

// nics is how many NICs a host has, each with a network of its own.
const nics = 2

// network finds or makes the network behind the n-th NIC of all hosts; that of
// the management interface is there already.
func (f *filler) network(tx *db.Tx, n int) api.NetworkRef {
	bridge := fmt.Sprintf("xenbr%d", n)
	for ref, r := range db.All[api.Network](tx) {
		if r.Bridge == bridge {
			return ref
		}
	}
	r := api.NewNetwork()
	r.NameLabel, r.Bridge, r.Managed, r.MTU = fmt.Sprintf("Pool-wide network associated with eth%d", n), bridge, true, 1500
	return add(f, tx, r)
}

func (f *filler) pool(tx *db.Tx) error {
	for ref := range db.All[api.Pool](tx) {
		p, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		if p.NameLabel == "" {
			p.NameLabel = "Simulated pool"
		}
		p.NameDescription = fmt.Sprintf("%d hosts and %d VMs that are not there", f.cfg.Hosts, f.cfg.VMs)
	}
	return nil
}

func newSR(name, kind string, size int64) *api.SR {
	sr := api.NewSR()
	sr.NameLabel, sr.Type, sr.ContentType, sr.PhysicalSize = name, kind, "user", size
	sr.SMConfig = map[string]string{}
	return sr
}

func hostname(i int) string    { return fmt.Sprintf("sim-host-%02d", i+1) }
func hostAddress(i int) string { return fmt.Sprintf("10.77.%d.%d", i/200, i%200+10) }

// host makes a host as the own one is, which is in the database already.
func (f *filler) host(tx *db.Tx, i int) error {
	ref := f.own
	if i > 0 {
		var err error
		if ref, err = f.copyHost(tx, i); err != nil {
			return err
		}
	}
	f.hosts = append(f.hosts, ref)
	for n, network := range f.networks {
		if i == 0 && hasNIC(tx, ref, n) {
			continue
		}
		f.pif(tx, ref, network, i, n)
	}
	f.local = append(f.local, add(f, tx, newSR("Local storage on "+hostname(i), "ext", 2<<40)))
	f.pbd(tx, ref, f.local[i], map[string]string{"device": fmt.Sprintf("/dev/simulated%d", i)})
	for n, sr := range f.shared {
		f.pbd(tx, ref, sr, map[string]string{"location": fmt.Sprintf("/simulated/%d", n)})
	}
	return nil
}

func (f *filler) pbd(tx *db.Tx, host api.HostRef, sr api.SRRef, config map[string]string) {
	pbd := api.NewPBD()
	pbd.Host, pbd.SR, pbd.CurrentlyAttached, pbd.DeviceConfig = host, sr, true, config
	add(f, tx, pbd)
}

func (f *filler) copyHost(tx *db.Tx, i int) (api.HostRef, error) {
	own, err := db.Get(tx, f.own)
	if err != nil {
		return "", err
	}
	metrics := api.NewHostMetrics()
	metrics.MemoryTotal, metrics.MemoryFree, metrics.Live, metrics.LastUpdated = hostMemory, hostMemory-reserve, true, f.cfg.Now
	h := own.Clone()
	h.NameLabel, h.Hostname, h.Address, h.Enabled = hostname(i), hostname(i), hostAddress(i), true
	h.Metrics = add(f, tx, metrics)
	ref := add(f, tx, h)
	if h.ControlDomain, err = f.control(tx, own.ControlDomain, ref, i); err != nil {
		return "", err
	}
	for _, c := range own.HostCPUs {
		cpu, err := db.Get(tx, c)
		if err != nil {
			return "", err
		}
		copied := cpu.Clone()
		copied.Host = ref
		add(f, tx, copied)
	}
	return ref, nil
}

// control is the row of a host's own system.
func (f *filler) control(tx *db.Tx, own api.VMRef, host api.HostRef, i int) (api.VMRef, error) {
	original, err := db.Get(tx, own)
	if err != nil {
		return "", err
	}
	vm := original.Clone()
	vm.NameLabel = "Control domain on host: " + hostname(i)
	vm.ResidentOn, vm.Affinity = host, host
	vm.Metrics = add(f, tx, newMetrics(vm, f.cfg.Now))
	return add(f, tx, vm), nil
}

func newMetrics(vm *api.VM, started time.Time) *api.VMMetrics {
	m := api.NewVMMetrics()
	m.MemoryActual, m.VCPUsNumber, m.StartTime, m.LastUpdated = vm.MemoryStaticMax, vm.VCPUsAtStartup, started, started
	m.Hvm, m.CurrentDomainType = true, vm.DomainType
	return m
}

func hasNIC(tx *db.Tx, host api.HostRef, n int) bool {
	for _, p := range db.All[api.PIF](tx) {
		if p.Host == host && p.Device == fmt.Sprintf("eth%d", n) {
			return true
		}
	}
	return false
}

func (f *filler) pif(tx *db.Tx, host api.HostRef, network api.NetworkRef, i, n int) {
	m := api.NewPIFMetrics()
	m.Carrier, m.Speed, m.Duplex, m.VendorName, m.DeviceName = true, 25000, true, "Example", "Simulated 25G NIC"
	m.PCIBusPath, m.LastUpdated = fmt.Sprintf("0000:%02x:00.0", n+1), f.cfg.Now
	p := api.NewPIF()
	p.Device, p.Host, p.Network = fmt.Sprintf("eth%d", n), host, network
	p.MAC, p.MTU, p.VLAN = fmt.Sprintf("02:77:%02x:%02x:00:%02x", i>>8, i&0xff, n), 1500, -1
	p.Metrics, p.Physical, p.CurrentlyAttached, p.Managed = add(f, tx, m), true, true, true
	p.IPConfigurationMode = api.IPConfigurationModeNone
	if n == 0 {
		p.Management, p.DisallowUnplug = true, true
		p.IPConfigurationMode, p.IP, p.Netmask, p.Gateway = api.IPConfigurationModeStatic, hostAddress(i), "255.255.0.0", "10.77.255.254"
	}
	add(f, tx, p)
}
