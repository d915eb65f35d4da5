package host

import (
	"errors"
	"maps"
	"reflect"
	"strconv"
	"strings"
	"time"

	"cairn/init/config"
	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/memory"
	"cairn/toolstack/operation"
)

// Identity on the wire: what clients compare versions with. The platform and API
// versions are those whose behaviour is implemented here.
const (
	brand           = "Cairn"
	platformName    = "Cairn"
	platformVersion = "3.4.0"
	apiMajor        = 2
	apiMinor        = 23
	schemaVersion   = "5.909"
	compatVersion   = "26.17.0" // of the reference implementation; clients look for the key
)

// Keys of host.other_config that are the toolstack's.
const (
	kvmKey       = "kvm"       // "usable", or why not
	emulationKey = "emulation" // "allowed" or "none"
	disabledKey  = "auto_enable"
)

// errUnchanged ends a transaction in which there was nothing to write.
var errUnchanged = errors.New("nothing has changed")

// write brings all rows up to date; it is errUnchanged when they were.
func (m *Manager) write(tx *db.Tx, f *facts) (api.HostRef, error) {
	w := &writer{tx: tx}
	ref, first := m.hostRef(tx)
	var metrics api.HostMetricsRef
	var control api.VMRef
	if h, err := db.Get(tx, ref); err == nil {
		metrics, control = h.Metrics, h.ControlDomain
	}
	metrics = upsert(w, metrics, api.NewHostMetrics, func(r *api.HostMetrics) {
		r.MemoryTotal, r.Live = f.inventory.Memory.Total, true
		r.MemoryFree = max(memory.Free(tx, ref, guestMemory(f)), 0)
		if r.LastUpdated.IsZero() {
			r.LastUpdated = f.asked
		}
		if r.UUID == "" {
			r.UUID = api.NewUUID()
		}
	})
	control = m.writeControlDomain(w, control, ref, f)
	ref = upsert(w, ref, api.NewHost, func(r *api.Host) {
		if first {
			r.UUID, r.NameLabel, r.Enabled = m.uuid, f.inventory.Hostname, true
		}
		r.Metrics, r.ControlDomain = metrics, control
		m.describe(r, f)
	})
	writeCPUs(w, ref, f)
	writeManagement(w, ref, f)
	writePool(w, ref, f)
	if !w.wrote {
		return ref, errUnchanged
	}
	return ref, nil
}

// hostRef finds this host's row, or chooses its reference.
func (m *Manager) hostRef(tx *db.Tx) (ref api.HostRef, first bool) {
	if ref, err := db.ByUUID[api.Host](tx, m.uuid); err == nil {
		return ref, false
	}
	return api.NewRef[api.Host](), true
}

// writer remembers whether anything was written.
type writer struct {
	tx    *db.Tx
	wrote bool
}

// record is a class's record type.
type record[T any] interface {
	api.RecordPtr[T]
	Clone() *T
}

// upsert makes a row what set makes of it, and writes it only when that differs.
// A null ref, or one of a row that is not there, makes a new row.
func upsert[T any, P record[T]](w *writer, ref api.Ref[T], fresh func() *T, set func(*T)) api.Ref[T] {
	old, err := db.Get[T, P](w.tx, ref)
	if err != nil {
		r := fresh()
		set(r)
		w.wrote = true
		if ref.IsNull() {
			ref = api.NewRef[T]()
		}
		db.InsertAs[T, P](w.tx, ref, r)
		return ref
	}
	changed := P(old).Clone()
	set(changed)
	if reflect.DeepEqual(old, changed) {
		return ref
	}
	if row, err := db.Edit[T, P](w.tx, ref); err == nil {
		*row = *changed
		w.wrote = true
	}
	return ref
}

// describe fills in what hostd and the hypervisor say of the host.
func (m *Manager) describe(r *api.Host, f *facts) {
	r.Hostname, r.Address = f.inventory.Hostname, f.address
	r.APIVersionMajor, r.APIVersionMinor, r.APIVersionVendor = apiMajor, apiMinor, brand
	r.SoftwareVersion = m.softwareVersion(f)
	r.Capabilities = capabilities(f.inventory.KVM)
	r.OtherConfig = maps.Clone(r.OtherConfig)
	if r.OtherConfig == nil {
		r.OtherConfig = map[string]string{}
	}
	r.OtherConfig[kvmKey] = kvmText(f.inventory.KVM)
	r.OtherConfig[emulationKey] = string(f.document.Emulation)
	if f.document.Emulation == "" {
		r.OtherConfig[emulationKey] = string(config.EmulationNone)
	}
	r.CPUInfo = cpuInfo(f.inventory.CPU)
	r.CPUConfiguration = map[string]string{}
	r.SchedPolicy, r.Edition, r.Editions = "credit", Edition, Editions
	r.LicenseParams = LicenseParams()
	r.LicenseParams["sockets"] = r.CPUInfo["socket_count"]
	r.BIOSStrings = biosStrings(f.inventory)
	r.ChipsetInfo = map[string]string{"iommu": strconv.FormatBool(f.inventory.IOMMU)}
	r.SecureBoot = f.inventory.SecureBoot
	r.VirtualHardwarePlatformVersions = []int64{0, 1, 2}
	r.HTTPSOnly, r.SSLLegacy, r.SSHEnabled = true, false, false
	r.TLSVerificationEnabled = true
	r.NTPMode = ntpMode(f.document)
	if len(f.document.NTP) > 0 {
		r.NTPCustomServers = f.document.NTP
	}
	if r.Timezone == "" {
		r.Timezone = "UTC"
	}
	if r.LicenseServer == nil {
		r.LicenseServer = map[string]string{"address": "localhost", "port": "27000"}
	}
	r.AllowedOperations = hostOperations(r.Enabled)
}

// hostOperations is what a client may do with a host, enabled or not.
func hostOperations(enabled bool) []api.HostAllowedOperations {
	return operation.Host.Allowed(nil, "", &api.Host{Enabled: enabled})
}

func (m *Manager) softwareVersion(f *facts) map[string]string {
	v := map[string]string{
		"product_brand": brand, "product_version": f.version.Product, "product_version_text": f.version.Product,
		"product_version_text_short": f.version.Product,
		"platform_name":              platformName, "platform_version": platformVersion,
		"build_number": f.version.Product, "hostname": "localhost", "linux": f.version.Kernel,
		"xapi": compatVersion, "xapi_build": compatVersion, "db_schema": schemaVersion, "network_backend": "bridge",
	}
	if hv := m.hv.Load(); hv != nil {
		v["libvirt"], v["qemu"] = hv.Libvirt, hv.QEMU
	}
	return v
}

// capabilities: clients look for "hvm" to know whether guests can run at all.
func capabilities(kvm client.KVM) []string {
	if !kvm.Usable {
		return []string{}
	}
	return []string{"hvm-3.0-x86_32", "hvm-3.0-x86_32p", "hvm-3.0-x86_64"}
}

func kvmText(kvm client.KVM) string {
	if kvm.Usable {
		return "usable"
	}
	if kvm.Reason == "" {
		return "missing"
	}
	return kvm.Reason
}

// cpuInfo: guests see the processor as it is, so what guests of any kind may use
// is what it has.
func cpuInfo(c client.CPU) map[string]string {
	features := featureSet(c.Flags)
	return map[string]string{
		"cpu_count": strconv.Itoa(c.Count), "socket_count": strconv.Itoa(max(c.Sockets, 1)),
		"threads_per_core": "1", "vendor": c.Vendor, "speed": strconv.FormatFloat(c.MHz, 'f', 3, 64),
		"modelname": c.Model, "family": strconv.Itoa(c.Family), "model": strconv.Itoa(c.ModelID),
		"stepping": strconv.Itoa(c.Stepping), "flags": strings.Join(c.Flags, " "),
		"features": features, "features_pv": features, "features_hvm": features,
		"features_hvm_host": features, "features_pv_host": features,
	}
}

func biosStrings(i client.Inventory) map[string]string {
	return map[string]string{
		"bios-vendor": i.BIOS.Vendor, "bios-version": i.BIOS.Version,
		"system-manufacturer": i.Product.Manufacturer, "system-product-name": i.Product.Name,
		"system-serial-number": i.Product.Serial,
	}
}

// writeCPUs keeps one row per processor.
func writeCPUs(w *writer, host api.HostRef, f *facts) {
	have := map[int64]api.HostCPURef{}
	for ref, c := range db.All[api.HostCPU](w.tx) {
		if c.Host == host {
			have[c.Number] = ref
		}
	}
	cpu := f.inventory.CPU
	for n := range int64(cpu.Count) {
		upsert(w, have[n], api.NewHostCPU, func(r *api.HostCPU) {
			if r.UUID == "" {
				r.UUID = api.NewUUID()
			}
			r.Host, r.Number, r.Vendor, r.Modelname = host, n, cpu.Vendor, cpu.Model
			r.Family, r.Model, r.Stepping = int64(cpu.Family), int64(cpu.ModelID), strconv.Itoa(cpu.Stepping)
			r.Speed, r.Flags, r.Features = int64(cpu.MHz), strings.Join(cpu.Flags, " "), featureSet(cpu.Flags)
		})
		delete(have, n)
	}
	for _, ref := range have {
		if db.Delete(w.tx, ref) == nil {
			w.wrote = true
		}
	}
}

// writePool makes the pool of one that every host begins as, and keeps what
// follows from its hosts. The first telemetry would be due a week after that; it
// is never sent anywhere.
func writePool(w *writer, host api.HostRef, f *facts) {
	var ref api.PoolRef
	for r := range db.All[api.Pool](w.tx) {
		ref = r
	}
	upsert(w, ref, api.NewPool, func(p *api.Pool) {
		if p.UUID == "" {
			p.UUID, p.Master = api.NewUUID(), host
			p.TLSVerificationEnabled = true
			p.LicenseServer = map[string]string{"address": "localhost", "port": "27000"}
		}
		if p.TelemetryUUID.IsNull() {
			id := api.NewSecret()
			id.UUID, id.Value = api.NewUUID(), api.NewUUID()
			p.TelemetryUUID = db.Insert(w.tx, id)
			p.TelemetryNextCollection = f.asked.Add(7 * 24 * time.Hour)
		}
		p.Restrictions = Restrictions()
		if p.Master == host {
			p.CPUInfo = poolCPUInfo(w.tx, cpuInfo(f.inventory.CPU))
		}
	})
}

// poolCPUInfo is what guests may count on wherever they run, which while there is
// one host is what it has; the counts are sums.
func poolCPUInfo(r db.Reader, master map[string]string) map[string]string {
	cpus, sockets := 0, 0
	for _, h := range db.All[api.Host](r) {
		cpus += number(h.CPUInfo["cpu_count"])
		sockets += number(h.CPUInfo["socket_count"])
	}
	return map[string]string{
		"cpu_count": strconv.Itoa(cpus), "socket_count": strconv.Itoa(sockets), "vendor": master["vendor"],
		"features_pv": master["features_pv"], "features_hvm": master["features_hvm"],
		"features_pv_host": master["features_pv_host"], "features_hvm_host": master["features_hvm_host"],
	}
}

func number(s string) int {
	n, _ := strconv.Atoi(s) // what is none counts nothing
	return n
}

// writeControlDomain keeps the VM row that stands for the host's own system:
// clients count its memory as the host's and look for it by is_control_domain.
func (m *Manager) writeControlDomain(w *writer, ref api.VMRef, host api.HostRef, f *facts) api.VMRef {
	memory := reserve(f.inventory.Memory.Total)
	var metrics api.VMMetricsRef
	if vm, err := db.Get(w.tx, ref); err == nil {
		metrics = vm.Metrics
	}
	metrics = upsert(w, metrics, api.NewVMMetrics, func(r *api.VMMetrics) {
		r.MemoryActual, r.VCPUsNumber = memory, int64(f.inventory.CPU.Count)
		if r.LastUpdated.IsZero() {
			r.LastUpdated = f.asked
		}
		if r.UUID == "" {
			r.UUID = api.NewUUID()
		}
	})
	return upsert(w, ref, api.NewVM, func(vm *api.VM) {
		if vm.UUID == "" {
			vm.UUID = api.NewUUID()
			vm.NameDescription = "The system of the host itself"
		}
		vm.NameLabel = "Control domain on host: " + f.inventory.Hostname
		vm.IsControlDomain, vm.PowerState, vm.Domid = true, api.VMPowerStateRunning, 0
		vm.ResidentOn, vm.Affinity, vm.Metrics = host, host, metrics
		vm.MemoryStaticMin, vm.MemoryDynamicMin, vm.MemoryTarget = memory, memory, memory
		vm.MemoryDynamicMax, vm.MemoryStaticMax = memory, memory
		vm.VCPUsMax, vm.VCPUsAtStartup = int64(f.inventory.CPU.Count), int64(f.inventory.CPU.Count)
		vm.DomainType = api.DomainTypePv
		vm.AllowedOperations = nil
	})
}
