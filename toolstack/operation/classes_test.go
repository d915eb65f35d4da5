package operation

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// pool is a small pool: a running machine v with disk and drive, a halted one h,
// a repository with a driver that can do a little.
type pool struct {
	*testing.T
	db *db.DB
}

func newPool(t *testing.T) *pool {
	d, err := db.Open(t.Context(), db.NewMemory(), db.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	p := &pool{t, d}
	p.update(func(tx *db.Tx) {
		db.InsertAs(tx, "OpaqueRef:pool", api.NewPool())
		metrics := api.NewHostMetrics()
		metrics.Live = true
		db.InsertAs(tx, "OpaqueRef:metrics", metrics)
		db.InsertAs(tx, "OpaqueRef:host", &api.Host{Metrics: "OpaqueRef:metrics", Enabled: true})
		db.InsertAs(tx, "OpaqueRef:sm", &api.SM{Type: "file", Features: map[string]int64{
			"VDI_CLONE": 1, "VDI_SNAPSHOT": 1, "VDI_DELETE": 1, "VDI_RESIZE": 1, "SR_SCAN": 1, "VDI_CREATE": 1, "VDI_CONFIG_CBT": 1,
		}})
		db.InsertAs(tx, "OpaqueRef:sr", &api.SR{Type: "file"})
		db.InsertAs(tx, "OpaqueRef:pbd", &api.PBD{SR: "OpaqueRef:sr", Host: "OpaqueRef:host", CurrentlyAttached: true})
		db.InsertAs(tx, "OpaqueRef:vdi", &api.VDI{SR: "OpaqueRef:sr", Managed: true, Type: api.VDITypeUser})
		db.InsertAs(tx, "OpaqueRef:net", api.NewNetwork())
		db.InsertAs(tx, "OpaqueRef:appliance", api.NewVMAppliance())
		db.InsertAs(tx, "OpaqueRef:v", &api.VM{PowerState: api.VMPowerStateRunning, Appliance: "OpaqueRef:appliance"})
		db.InsertAs(tx, "OpaqueRef:h", &api.VM{PowerState: api.VMPowerStateHalted})
		db.InsertAs(tx, "OpaqueRef:disk", &api.VBD{VM: "OpaqueRef:v", VDI: "OpaqueRef:vdi", Mode: api.VBDModeRW, CurrentlyAttached: true, Unpluggable: true})
		db.InsertAs(tx, "OpaqueRef:other", &api.VBD{VM: "OpaqueRef:v", VDI: "OpaqueRef:vdi", Mode: api.VBDModeRO})
		db.InsertAs(tx, "OpaqueRef:cd", &api.VBD{VM: "OpaqueRef:v", Type: api.VBDTypeCD, Empty: true})
		db.InsertAs(tx, "OpaqueRef:vif", &api.VIF{VM: "OpaqueRef:v", Network: "OpaqueRef:net"})
		db.InsertAs(tx, "OpaqueRef:vusb", &api.VUSB{VM: "OpaqueRef:v"})
		db.InsertAs(tx, "OpaqueRef:vtpm", &api.VTPM{VM: "OpaqueRef:v"})
		db.InsertAs(tx, "OpaqueRef:cluster", &api.Cluster{})
		db.InsertAs(tx, "OpaqueRef:member", &api.ClusterHost{Cluster: "OpaqueRef:cluster", Enabled: true})
	})
	return p
}

func (p *pool) update(f func(tx *db.Tx)) {
	p.Helper()
	if err := p.db.Update(context.Background(), func(tx *db.Tx) error { f(tx); return nil }); err != nil {
		p.Fatal(err)
	}
}

// set edits one object.
func set[T any, P api.RecordPtr[T]](p *pool, ref string, f func(*T)) {
	p.Helper()
	p.update(func(tx *db.Tx) {
		r, err := db.Edit[T, P](tx, api.Ref[T](ref))
		if err != nil {
			p.Fatal(err)
		}
		f(r)
	})
}

// allows is what a table's operations are answered on an object: those allowed,
// then the errors of the others.
func allows[T any, P api.RecordPtr[T], O ~string](p *pool, t *Table[T, P, O], ref string) string {
	p.Helper()
	r, err := db.Get[T, P](p.db.Snapshot(), api.Ref[T](ref))
	if err != nil {
		p.Fatal(err)
	}
	var ok []string
	for _, rule := range t.rules {
		if t.judge(p.db.Snapshot(), api.Ref[T](ref), r, rule.op) == nil {
			ok = append(ok, string(rule.op))
		}
	}
	return strings.Join(ok, " ")
}

func answer[T any, P api.RecordPtr[T], O ~string](p *pool, t *Table[T, P, O], ref string, op O) string {
	p.Helper()
	r, err := db.Get[T, P](p.db.Snapshot(), api.Ref[T](ref))
	if err != nil {
		p.Fatal(err)
	}
	return code(t.judge(p.db.Snapshot(), api.Ref[T](ref), r, op))
}

func (p *pool) expect(what, got, want string) {
	p.Helper()
	if got != want {
		p.Errorf("%s: %q, want %q", what, got, want)
	}
}

func TestDevices(t *testing.T) {
	p := newPool(t)
	p.expect("attached disk", allows(p, VBD, "OpaqueRef:disk"), "unplug unplug_force pause unpause")
	p.expect("attached disk", answer(p, VBD, "OpaqueRef:disk", "plug"), "DEVICE_ALREADY_ATTACHED OpaqueRef:disk")
	p.expect("attached disk", answer(p, VBD, "OpaqueRef:disk", "eject"), "VBD_NOT_REMOVABLE_MEDIA OpaqueRef:disk")
	p.expect("second user", allows(p, VBD, "OpaqueRef:other"), "")
	p.expect("second user", answer(p, VBD, "OpaqueRef:other", "plug"), "VDI_IN_USE OpaqueRef:vdi,plug")
	p.expect("second user", answer(p, VBD, "OpaqueRef:other", "unplug"), "DEVICE_ALREADY_DETACHED OpaqueRef:other")
	p.expect("empty drive", allows(p, VBD, "OpaqueRef:cd"), "attach insert")
	p.expect("empty drive", answer(p, VBD, "OpaqueRef:cd", "eject"), "VBD_IS_EMPTY OpaqueRef:cd")
	set(p, "OpaqueRef:cd", func(v *api.VBD) { v.Empty = false })
	p.expect("full drive", allows(p, VBD, "OpaqueRef:cd"), "attach eject")
	p.expect("full drive", answer(p, VBD, "OpaqueRef:cd", "insert"), "VBD_NOT_EMPTY OpaqueRef:cd")

	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.Sharable = true })
	p.expect("sharable", allows(p, VBD, "OpaqueRef:other"), "attach plug")
	p.expect("sharable", allows(p, VDI, "OpaqueRef:vdi"), "disable_cbt list_changed_blocks")
	p.expect("sharable", answer(p, VDI, "OpaqueRef:vdi", "snapshot"), "VDI_IS_SHARABLE OpaqueRef:vdi")
	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.CurrentOperations = map[string]api.VDIOperations{"OpaqueRef:t": "copy"} })
	p.expect("being copied", allows(p, VBD, "OpaqueRef:other"), "attach plug")
	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.CurrentOperations["OpaqueRef:t"] = "resize" })
	p.expect("being resized", answer(p, VBD, "OpaqueRef:other", "plug"), "OTHER_OPERATION_IN_PROGRESS VDI,OpaqueRef:vdi,resize,OpaqueRef:t")

	set(p, "OpaqueRef:disk", func(v *api.VBD) { v.CurrentOperations = map[string]api.VBDOperations{"OpaqueRef:t": "pause"} })
	p.expect("being paused", allows(p, VBD, "OpaqueRef:disk"), "pause unpause")
	p.expect("being paused", answer(p, VBD, "OpaqueRef:disk", "unplug"), "OTHER_OPERATION_IN_PROGRESS VBD,OpaqueRef:disk,pause,OpaqueRef:t")

	p.expect("network device", allows(p, VIF, "OpaqueRef:vif"), "attach plug")
	p.expect("usb device", allows(p, VUSB, "OpaqueRef:vusb"), "attach plug")
	p.expect("tpm", answer(p, VTPM, "OpaqueRef:vtpm", "destroy"), "VM_BAD_POWER_STATE OpaqueRef:v,halted,running")
	p.expect("network", allows(p, Network, "OpaqueRef:net"), "attaching")
	set(p, "OpaqueRef:vif", func(v *api.VIF) { v.CurrentlyAttached = true })
	p.expect("attached network device", allows(p, VIF, "OpaqueRef:vif"), "unplug")
	p.update(func(tx *db.Tx) {
		db.InsertAs(tx, "OpaqueRef:pif", &api.PIF{Network: "OpaqueRef:net"})
		db.Insert(tx, &api.NetworkSRIOV{LogicalPIF: "OpaqueRef:pif"})
	})
	p.expect("on SR-IOV", allows(p, VIF, "OpaqueRef:vif"), "")

	set(p, "OpaqueRef:v", func(v *api.VM) { v.CurrentOperations = map[string]api.VMOperations{"OpaqueRef:t": "clean_shutdown"} })
	p.expect("machine going down", answer(p, VIF, "OpaqueRef:vif", "unplug"), "OPERATION_NOT_ALLOWED a VIF on an SR-IOV network cannot be plugged or unplugged while the VM runs")
	p.expect("machine going down", answer(p, VBD, "OpaqueRef:cd", "eject"), "OTHER_OPERATION_IN_PROGRESS VM,OpaqueRef:v,clean_shutdown,OpaqueRef:t")
	set(p, "OpaqueRef:v", func(v *api.VM) { v.CurrentOperations, v.PowerState = nil, "Suspended" })
	p.expect("suspended machine", answer(p, VBD, "OpaqueRef:cd", "eject"), "VM_BAD_POWER_STATE OpaqueRef:v,halted; running,suspended")
	set(p, "OpaqueRef:v", func(v *api.VM) { v.PowerState = "Halted" })
	p.expect("tpm of a halted machine", allows(p, VTPM, "OpaqueRef:vtpm"), "destroy")
}

func TestDisksAndRepositories(t *testing.T) {
	p := newPool(t)
	p.expect("in use", allows(p, VDI, "OpaqueRef:vdi"), "clone snapshot enable_cbt disable_cbt list_changed_blocks")
	p.expect("in use", answer(p, VDI, "OpaqueRef:vdi", "destroy"), "VDI_IN_USE OpaqueRef:vdi,destroy")
	p.expect("driver", answer(p, VDI, "OpaqueRef:vdi", "mirror"), "SR_OPERATION_NOT_SUPPORTED OpaqueRef:sr")
	set(p, "OpaqueRef:disk", func(v *api.VBD) { v.Mode = "RO" })
	p.expect("read", answer(p, VDI, "OpaqueRef:vdi", "copy"), "ok")
	set(p, "OpaqueRef:disk", func(v *api.VBD) { v.CurrentlyAttached = false })
	p.expect("not in use", allows(p, VDI, "OpaqueRef:vdi"), "clone copy resize snapshot destroy forget force_unlock enable_cbt disable_cbt list_changed_blocks")
	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.CurrentOperations = map[string]api.VDIOperations{"OpaqueRef:t": "snapshot"} })
	p.expect("being snapshotted", answer(p, VDI, "OpaqueRef:vdi", "copy"), "OTHER_OPERATION_IN_PROGRESS VDI,OpaqueRef:vdi,snapshot,OpaqueRef:t")
	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.CurrentOperations = nil; v.CBTEnabled = true })
	p.expect("tracked", answer(p, VDI, "OpaqueRef:vdi", "resize"), "VDI_CBT_ENABLED OpaqueRef:vdi")
	p.expect("tracked", strings.Fields(answer(p, VDI, "OpaqueRef:vdi", "data_destroy"))[0], "OPERATION_NOT_ALLOWED")
	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.OnBoot = api.OnBootReset })
	p.expect("resets", answer(p, VDI, "OpaqueRef:vdi", "enable_cbt"), "VDI_ON_BOOT_MODE_INCOMPATIBLE_WITH_OPERATION")
	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.OnBoot, v.Type = api.OnBootPersist, api.VDITypeSuspend })
	p.expect("memory", answer(p, VDI, "OpaqueRef:vdi", "disable_cbt"), "VDI_INCOMPATIBLE_TYPE OpaqueRef:vdi,suspend")
	set(p, "OpaqueRef:h", func(v *api.VM) { v.SuspendVDI = "OpaqueRef:vdi" })
	p.expect("memory of a machine", allows(p, VDI, "OpaqueRef:vdi"), "copy list_changed_blocks")
	p.expect("memory of a machine", answer(p, VDI, "OpaqueRef:vdi", "destroy"), "VDI_IN_USE OpaqueRef:vdi,destroy")
	set(p, "OpaqueRef:h", func(v *api.VM) { v.SuspendVDI = "" })
	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.IsASnapshot, v.Type = true, api.VDITypeUser })
	p.expect("tracked snapshot", answer(p, VDI, "OpaqueRef:vdi", "data_destroy"), "ok")
	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.Type = api.VDITypeCBTMetadata })
	p.expect("record of changes", allows(p, VDI, "OpaqueRef:vdi"), "destroy forget force_unlock data_destroy list_changed_blocks")
	p.expect("record of changes", answer(p, VDI, "OpaqueRef:vdi", "clone"), "VDI_INCOMPATIBLE_TYPE OpaqueRef:vdi,cbt_metadata")
	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.Type = api.VDITypeUser; v.CBTEnabled, v.IsASnapshot = false, true })
	p.expect("untracked snapshot", answer(p, VDI, "OpaqueRef:vdi", "data_destroy"), "VDI_NO_CBT_METADATA OpaqueRef:vdi")
	p.expect("snapshot", strings.Fields(answer(p, VDI, "OpaqueRef:vdi", "enable_cbt"))[0], "OPERATION_NOT_ALLOWED")
	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.Missing = true })
	p.expect("missing", allows(p, VDI, "OpaqueRef:vdi"), "destroy forget")
	p.expect("missing", answer(p, VDI, "OpaqueRef:vdi", "clone"), "VDI_MISSING OpaqueRef:sr,OpaqueRef:vdi")
	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.Missing, v.Managed = false, false })
	p.expect("unmanaged", answer(p, VDI, "OpaqueRef:vdi", "clone"), "VDI_NOT_MANAGED OpaqueRef:vdi")
	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.Type, v.Managed = api.VDITypeHAStatefile, true })
	p.expect("statefile without HA", answer(p, VDI, "OpaqueRef:vdi", "destroy"), "ok")
	set(p, "OpaqueRef:pool", func(x *api.Pool) { x.HAEnabled = true })
	p.expect("statefile", answer(p, VDI, "OpaqueRef:vdi", "destroy"), "HA_IS_ENABLED")

	p.expect("repository", allows(p, SR, "OpaqueRef:sr"), "scan plug unplug vdi_create vdi_destroy vdi_resize vdi_clone vdi_snapshot vdi_enable_cbt vdi_disable_cbt vdi_data_destroy vdi_list_changed_blocks vdi_copy vdi_forget pbd_create pbd_destroy")
	p.expect("attached", answer(p, SR, "OpaqueRef:sr", "destroy"), "SR_HAS_PBD OpaqueRef:sr")
	set(p, "OpaqueRef:sr", func(r *api.SR) { r.CurrentOperations = map[string]api.StorageOperations{"OpaqueRef:t": "plug"} })
	p.expect("being plugged", allows(p, SR, "OpaqueRef:sr"), "plug")
	set(p, "OpaqueRef:sr", func(r *api.SR) { r.CurrentOperations = nil })
	set(p, "OpaqueRef:pbd", func(b *api.PBD) { b.CurrentlyAttached = false })
	p.expect("disk of a detached repository", answer(p, VDI, "OpaqueRef:vdi", "clone"), "SR_NOT_ATTACHED OpaqueRef:sr")
	p.expect("with disks", answer(p, SR, "OpaqueRef:sr", "destroy"), "SR_NOT_EMPTY")
	p.expect("with disks", answer(p, SR, "OpaqueRef:sr", "forget"), "ok")
	set(p, "OpaqueRef:vdi", func(v *api.VDI) { v.Managed = false })
	p.expect("empty", answer(p, SR, "OpaqueRef:sr", "destroy"), "ok")
	set(p, "OpaqueRef:sr", func(r *api.SR) { r.OtherConfig = map[string]string{"indestructible": "true"} })
	p.expect("indestructible", answer(p, SR, "OpaqueRef:sr", "forget"), "SR_INDESTRUCTIBLE OpaqueRef:sr")
	set(p, "OpaqueRef:sr", func(r *api.SR) { r.OtherConfig = nil })
	p.update(func(tx *db.Tx) { db.Delete(tx, api.PBDRef("OpaqueRef:pbd")) })
	p.expect("nowhere", answer(p, SR, "OpaqueRef:sr", "destroy"), "SR_HAS_NO_PBDS OpaqueRef:sr")
}

func TestHostsAndPools(t *testing.T) {
	p := newPool(t)
	p.expect("enabled", allows(p, Host, "OpaqueRef:host"), "provision evacuate vm_start vm_resume vm_migrate")
	p.expect("enabled", answer(p, Host, "OpaqueRef:host", "reboot"), "HOST_NOT_DISABLED")
	p.expect("live", answer(p, Host, "OpaqueRef:host", "power_on"), "HOST_IS_LIVE OpaqueRef:host")
	set(p, "OpaqueRef:host", func(h *api.Host) {
		h.CurrentOperations = map[string]api.HostAllowedOperations{"OpaqueRef:t": "vm_start"}
	})
	p.expect("starting a machine", allows(p, Host, "OpaqueRef:host"), "provision evacuate vm_start vm_resume vm_migrate")
	set(p, "OpaqueRef:host", func(h *api.Host) { h.CurrentOperations["OpaqueRef:t"] = "evacuate" })
	p.expect("evacuating", allows(p, Host, "OpaqueRef:host"), "vm_migrate")
	set(p, "OpaqueRef:host", func(h *api.Host) { h.CurrentOperations = nil; h.Enabled = false })
	p.expect("disabled", allows(p, Host, "OpaqueRef:host"), "evacuate enable shutdown reboot apply_updates")
	p.expect("disabled", answer(p, Host, "OpaqueRef:host", "vm_start"), "HOST_DISABLED OpaqueRef:host")
	set(p, "OpaqueRef:metrics", func(m *api.HostMetrics) { m.Live = false })
	p.expect("down", answer(p, Host, "OpaqueRef:host", "power_on"), "ok")

	p.expect("pool with a cluster", answer(p, Pool, "OpaqueRef:pool", "cluster_create"), "CLUSTER_ALREADY_EXISTS")
	p.expect("pool", answer(p, Pool, "OpaqueRef:pool", "ha_disable"), "HA_NOT_ENABLED")
	for op, want := range map[api.PoolAllowedOperations]string{
		"ha_enable": "HA_ENABLE_IN_PROGRESS", "ha_disable": "HA_DISABLE_IN_PROGRESS", "cluster_create": "CLUSTER_CREATE_IN_PROGRESS",
		"designate_new_master": "DESIGNATE_NEW_MASTER_IN_PROGRESS", "tls_verification_enable": "TLS_VERIFICATION_ENABLE_IN_PROGRESS",
		"configure_repositories": "CONFIGURE_REPOSITORIES_IN_PROGRESS", "sync_updates": "SYNC_UPDATES_IN_PROGRESS",
		"sync_bundle": "SYNC_BUNDLE_IN_PROGRESS", "apply_updates": "APPLY_UPDATES_IN_PROGRESS", "eject": "OTHER_OPERATION_IN_PROGRESS pool,OpaqueRef:pool,eject,OpaqueRef:t",
	} {
		set(p, "OpaqueRef:pool", func(x *api.Pool) { x.CurrentOperations = map[string]api.PoolAllowedOperations{"OpaqueRef:t": op} })
		p.expect("during "+string(op), answer(p, Pool, "OpaqueRef:pool", "sync_updates"), want)
	}
	set(p, "OpaqueRef:pool", func(x *api.Pool) { x.CurrentOperations = nil; x.HAEnabled = true })
	p.expect("with HA", allows(p, Pool, "OpaqueRef:pool"), "ha_disable configure_repositories sync_updates sync_bundle get_updates apply_updates cert_refresh exchange_certificates_on_join exchange_ca_certificates_on_join copy_primary_host_certs exchange_crls_on_join")
	p.expect("cluster", allows(p, Cluster, "OpaqueRef:cluster"), "add remove enable disable destroy")
	p.expect("member", allows(p, ClusterHost, "OpaqueRef:member"), "disable destroy")
	p.expect("appliance", allows(p, Appliance, "OpaqueRef:appliance"), "clean_shutdown hard_shutdown shutdown")
	set(p, "OpaqueRef:v", func(v *api.VM) { v.PowerState = "Halted" })
	p.expect("halted appliance", allows(p, Appliance, "OpaqueRef:appliance"), "start")
}

// TestBeginAndEnd: current_operations is the lock, and what is allowed follows.
func TestBeginAndEnd(t *testing.T) {
	p := newPool(t)
	begin := func(op api.VMOperations, task string) error {
		return p.db.Update(t.Context(), func(tx *db.Tx) error {
			_, err := VM.Begin(tx, "OpaqueRef:v", op, task)
			return err
		})
	}
	if err := begin("clean_shutdown", "OpaqueRef:t"); err != nil {
		t.Fatal(err)
	}
	p.expect("second", code(begin("clean_reboot", "OpaqueRef:u")), "OTHER_OPERATION_IN_PROGRESS VM,OpaqueRef:v,clean_shutdown,OpaqueRef:t")
	vm, _ := db.Get(p.db.Snapshot(), api.VMRef("OpaqueRef:v"))
	if vm.CurrentOperations["OpaqueRef:t"] != "clean_shutdown" || len(vm.CurrentOperations) != 1 || !slices.Equal(vm.AllowedOperations, []api.VMOperations{"hard_reboot", "hard_shutdown"}) {
		t.Errorf("during: %v, allowed %v", vm.CurrentOperations, vm.AllowedOperations)
	}
	p.update(func(tx *db.Tx) {
		vm, err := VM.End(tx, "OpaqueRef:v", "OpaqueRef:t")
		if err != nil {
			t.Fatal(err)
		}
		vm.PowerState = api.VMPowerStateHalted
		VM.Renew(tx, "OpaqueRef:v", vm)
	})
	vm, _ = db.Get(p.db.Snapshot(), api.VMRef("OpaqueRef:v"))
	if len(vm.CurrentOperations) != 0 || !slices.Contains(vm.AllowedOperations, "start") || slices.Contains(vm.AllowedOperations, "suspend") {
		t.Errorf("after: %v, allowed %v", vm.CurrentOperations, vm.AllowedOperations)
	}
	p.expect("gone", code(p.db.Update(t.Context(), func(tx *db.Tx) error {
		_, err := VM.Begin(tx, "OpaqueRef:none", "start", "OpaqueRef:t")
		return err
	})), "HANDLE_INVALID VM,OpaqueRef:none")
}

func TestRecover(t *testing.T) {
	p := newPool(t)
	set(p, "OpaqueRef:host", func(h *api.Host) {
		h.CurrentOperations = map[string]api.HostAllowedOperations{"OpaqueRef:t": "evacuate"}
	})
	set(p, "OpaqueRef:v", func(v *api.VM) { v.CurrentOperations = map[string]api.VMOperations{"OpaqueRef:t": "start"} })
	if err := Recover(t.Context(), p.db, journal.Discard()); err != nil {
		t.Fatal(err)
	}
	h, _ := db.Get(p.db.Snapshot(), api.HostRef("OpaqueRef:host"))
	if len(h.CurrentOperations) != 0 || !slices.Equal(h.AllowedOperations, []api.HostAllowedOperations{"provision", "evacuate", "vm_start"}) {
		t.Errorf("host: %v, allowed %v", h.CurrentOperations, h.AllowedOperations)
	}
	if v, _ := db.Get(p.db.Snapshot(), api.VMRef("OpaqueRef:v")); len(v.CurrentOperations) != 1 {
		t.Error("what a machine was doing is forgotten before its owner saw it")
	}
	before := p.db.Snapshot().Generation()
	if err := Recover(t.Context(), p.db, journal.Discard()); err != nil || p.db.Snapshot().Generation() != before {
		t.Errorf("what is right was written again, %v", err)
	}
}

// TestKeeper: allowed_operations follow changes of other objects, and what is
// right is left alone.
func TestKeeper(t *testing.T) {
	p := newPool(t)
	built := Host.built
	Host.built = append(slices.Clone(built), api.HostAllowedOperationsPowerOn)
	defer func() { Host.built = built }()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- NewKeeper(p.db).Run(ctx) }()
	w := p.db.Watch()
	defer w.Close()
	until := func(what string, is func() bool) {
		t.Helper()
		timeout := time.After(10 * time.Second)
		for !is() {
			select {
			case <-w.C():
			case <-timeout:
				t.Fatalf("%s: never", what)
			}
		}
	}
	host := func() []api.HostAllowedOperations {
		h, _ := db.Get(p.db.Snapshot(), api.HostRef("OpaqueRef:host"))
		return h.AllowedOperations
	}
	set(p, "OpaqueRef:metrics", func(m *api.HostMetrics) { m.Live = false })
	until("a host that is down can be switched on", func() bool { return slices.Contains(host(), "power_on") })
	set(p, "OpaqueRef:host", func(h *api.Host) { h.AllowedOperations = nil; h.Enabled = false })
	until("a disabled host can reboot", func() bool { return slices.Contains(host(), "reboot") })
	cancel()
	if err := <-done; err != context.Canceled {
		t.Error(err)
	}
}

// TestTablesAreComplete: the tables name each operation of their enumeration
// once, save those that clients cannot begin.
func TestTablesAreComplete(t *testing.T) {
	check := func(name string, has func(string) int, leftOut ...string) {
		t.Helper()
		class := api.FindClass(name)
		field := class.Fields[class.FieldByName("allowed_operations")]
		for _, op := range field.Type.Elem().Enum().Values {
			if n, want := has(op), 1; n != want && !(n == 0 && slices.Contains(leftOut, op)) {
				t.Errorf("%s: %s is in the table %d times", name, op, n)
			}
		}
	}
	check("VM", count(VM), "snapshot_with_quiesce", "csvm", "import", "reverting", "assert_operation_valid", "update_allowed_operations")
	check("VBD", count(VBD))
	check("VIF", count(VIF))
	check("VDI", count(VDI), "blocked")
	check("SR", count(SR), "vdi_blocked", "vdi_force_unlock")
	check("VUSB", count(VUSB))
	check("VTPM", count(VTPM))
	check("network", count(Network))
	check("host", count(Host))
	check("pool", count(Pool))
	check("Cluster", count(Cluster))
	check("Cluster_host", count(ClusterHost))
	check("VM_appliance", count(Appliance))
	for _, class := range api.Classes() {
		if class.FieldByName("allowed_operations") >= 0 && tableOf(api.FindClass(class.Name)) == nil && class.Name != "task" {
			t.Error(fmt.Sprint("no table for ", class.Name))
		}
	}
}

func count[T any, P api.RecordPtr[T], O ~string](t *Table[T, P, O]) func(string) int {
	return func(op string) int {
		n := 0
		for _, r := range t.rules {
			if string(r.op) == op {
				n++
			}
		}
		return n
	}
}
