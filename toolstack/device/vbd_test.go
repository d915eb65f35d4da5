package device_test

import (
	"errors"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/wire/wiretest"
)

func TestVBDCreate(t *testing.T) {
	s := newStack(t)
	s.Covers("VBD.create", "VBD.destroy", "VM.get_allowed_VBD_devices")
	first := s.vbd(drive(s.vm, s.vdi(), "autodetect"))
	second := s.vbd(cd(s.vm, "", "autodetect"))
	if a, b := wiretest.Get(s.Server, first), wiretest.Get(s.Server, second); a.Userdevice != "0" || b.Userdevice != "3" || a.CurrentlyAttached || !b.Empty {
		t.Errorf("%+v %+v", a, b)
	}
	if got := wiretest.Get(s.Server, s.vbd(drive(s.vm, s.vdi(), "xvdc"))).Userdevice; got != "2" {
		t.Errorf("xvdc is place %s", got)
	}
	var free []string
	s.Must(&free, "VM.get_allowed_VBD_devices", s.vm.String())
	if len(free) != 252 || strings.Join(free[:3], " ") != "1 4 5" {
		t.Errorf("free places: %d, %v", len(free), free[:3])
	}
	s.Must(nil, "VBD.destroy", first.String())
	s.Refused(api.ErrHandleInvalid("VBD", first.String()), "VBD.get_record", first.String())
}

func TestVBDCreateIsRefused(t *testing.T) {
	s := newStack(t)
	s.vbd(drive(s.vm, s.vdi(), "0"))
	locked, hidden := s.vdi(func(v *api.VDI) { v.ReadOnly = true }), s.vdi(func(v *api.VDI) { v.Managed = false })
	without := s.vdi(func(v *api.VDI) { v.Type = api.VDITypeCBTMetadata })
	none := api.VDIRef("OpaqueRef:none")
	tests := map[string]struct {
		args map[string]any
		edit func(map[string]any)
		want *api.Error
	}{
		"taken":      {drive(s.vm, s.vdi(), "0"), nil, api.ErrDeviceAlreadyExists("0")},
		"same place": {drive(s.vm, s.vdi(), "hda"), nil, api.ErrDeviceAlreadyExists("hda")},
		"beyond":     {drive(s.vm, s.vdi(), "255"), nil, api.ErrInvalidDevice("255")},
		"nonsense":   {drive(s.vm, s.vdi(), "-1"), nil, api.ErrInvalidDevice("-1")},
		"writable CD": {cd(s.vm, "", "3"), func(a map[string]any) { a["mode"] = "RW" },
			api.ErrVBDCdsMustBeReadonly()},
		"floppy": {drive(s.vm, s.vdi(), "1"), func(a map[string]any) { a["type"] = "Floppy" },
			api.ErrValueNotSupported("type", "Floppy", "machines have no floppy controller")},
		"empty disk": {drive(s.vm, "", "1"), nil, api.ErrVBDNotRemovableMedia("in constructor")},
		"read-only":  {drive(s.vm, locked, "1"), nil, api.ErrVDIReadonly(locked.String())},
		"unmanaged":  {drive(s.vm, hidden, "1"), nil, api.ErrVDINotManaged(hidden.String())},
		"no data":    {drive(s.vm, without, "1"), nil, api.ErrVDIIncompatibleType(without.String(), "cbt_metadata")},
		"no disk":    {drive(s.vm, none, "1"), nil, api.ErrHandleInvalid("VDI", none.String())},
		"no machine": {drive("OpaqueRef:x", s.vdi(), "1"), nil, api.ErrHandleInvalid("VM", "OpaqueRef:x")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.edit != nil {
				tt.edit(tt.args)
			}
			s.Refused(tt.want, "VBD.create", tt.args)
		})
	}
	if n := len(wiretest.Get(s.Server, s.vm).VBDs); n != 1 {
		t.Errorf("%d drives after refusals", n)
	}
}

// TestDisksOfAStart: a start attaches what a machine has, a stop lets go of it.
func TestDisksOfAStart(t *testing.T) {
	s := newStack(t)
	s.Covers("VBD.get_currently_attached", "VBD.get_device")
	disk, iso := s.vdi(), s.vdi()
	a, b := s.vbd(drive(s.vm, disk, "0")), s.vbd(cd(s.vm, iso, "3"))
	empty := s.vbd(cd(s.vm, "", "4"))
	nic := s.vif("0")
	s.start()
	s.agrees("running")
	s.holds("running", []api.VDIRef{disk, iso}, []api.VIFRef{nic})
	hw := s.hardware()
	root, _ := hw.Disk(wiretest.Get(s.Server, a).UUID)
	if root.Device != "sda" || root.Bus != hypervisor.SCSI || root.ReadOnly || root.Serial != wiretest.Get(s.Server, disk).UUID || root.Source.Path != "/sr/"+string(disk) {
		t.Errorf("%+v", root)
	}
	if d, _ := hw.Disk(wiretest.Get(s.Server, b).UUID); d.Device != "sdd" || d.Bus != hypervisor.SATA || !d.CD || !d.ReadOnly || d.Source == nil {
		t.Errorf("%+v", d)
	}
	if d, _ := hw.Disk(wiretest.Get(s.Server, empty).UUID); d.Source != nil || !d.CD {
		t.Errorf("%+v", d)
	}
	var attached bool
	var device string
	s.Must(&attached, "VBD.get_currently_attached", a.String())
	s.Must(&device, "VBD.get_device", a.String())
	if !attached || device != "sda" {
		t.Errorf("attached %v as %q", attached, device)
	}
	s.Refused(api.ErrOperationNotAllowed("VBD '"+wiretest.Get(s.Server, a).UUID+"' still attached to '"+wiretest.Get(s.Server, s.vm).UUID+"'"),
		"VBD.destroy", a.String())
	s.Must(nil, "VM.clean_reboot", s.vm.String())
	s.agrees("after a reboot")
	s.holds("after a reboot", []api.VDIRef{disk, iso}, []api.VIFRef{nic})
	s.Must(nil, "VM.hard_shutdown", s.vm.String())
	s.agrees("stopped")
	s.holds("stopped", nil, nil)
}

// TestStartFails: whichever step of a start fails, nothing is kept.
func TestStartFails(t *testing.T) {
	s := newStack(t)
	s.vbd(drive(s.vm, s.vdi(), "0"))
	s.vbd(drive(s.vm, s.vdi(), "1"))
	s.vif("0")
	s.vif("1")
	for fail := 1; ; fail++ {
		steps := 0
		s.at.Before = func(step, _ string) error {
			if steps++; steps == fail && (step == "attach" || step == "plug") {
				return api.ErrSRNotAttached(s.sr.String())
			}
			return nil
		}
		if _, err := s.Call("VM.start", s.vm.String(), false, false); err == nil {
			break
		}
		s.holds("failed", nil, nil)
		s.agrees("failed")
	}
	s.Must(nil, "VM.hard_shutdown", s.vm.String())
	s.at.Before = nil
	for _, method := range []string{"Start", "Resume"} {
		s.hv.FailNext(method, hypervisor.ErrBadState)
		if _, err := s.Call("VM.start", s.vm.String(), false, false); err == nil {
			t.Errorf("started in spite of %s", method)
		}
		s.holds(method, nil, nil)
		s.agrees(method)
	}
	s.start()
	s.agrees("started at last")
}

func TestStartLacks(t *testing.T) {
	s := newStack(t)
	s.Covers("VM.assert_can_boot_here", "VM.get_possible_hosts")
	elsewhere := wiretest.Insert(s.Server, &api.SR{Type: "ext"})
	far := wiretest.Insert(s.Server, &api.Network{Bridge: "xapi9"})
	wiretest.Insert(s.Server, &api.PIF{Network: far, Host: "OpaqueRef:other"})
	s.Must(nil, "VM.assert_can_boot_here", s.vm.String(), s.host.String())
	disk := s.vdi(func(v *api.VDI) { v.SR = elsewhere })
	vbd := s.vbd(drive(s.vm, disk, "0"))
	lack := api.ErrVMRequiresSR(s.vm.String(), elsewhere.String())
	s.Refused(lack, "VM.start", s.vm.String(), false, false)
	s.Refused(lack, "VM.assert_can_boot_here", s.vm.String(), s.host.String())
	s.Refused(lack, "VM.get_possible_hosts", s.vm.String())
	s.Must(nil, "VBD.destroy", vbd.String())
	args := s.nic("0")
	args["network"] = far.String()
	var vif api.VIFRef
	s.Must(&vif, "VIF.create", args)
	s.Refused(api.ErrVMRequiresNetwork(s.vm.String(), far.String()), "VM.start", s.vm.String(), false, false)
	s.Must(nil, "VIF.destroy", vif.String())
	missing := s.vdi(func(v *api.VDI) { v.Missing = true })
	vbd = s.vbd(drive(s.vm, missing, "0"))
	s.Refused(api.ErrVMRequiresVDI(s.vm.String(), missing.String()), "VM.start", s.vm.String(), false, false)
	s.Must(nil, "VBD.destroy", vbd.String())
	var hosts []api.HostRef
	s.Must(&hosts, "VM.get_possible_hosts", s.vm.String())
	if len(hosts) != 1 || hosts[0] != s.host {
		t.Errorf("possible hosts: %v", hosts)
	}
	s.holds("never started", nil, nil)
}

func TestVBDPlug(t *testing.T) {
	s := newStack(t)
	s.Covers("VBD.plug", "VBD.unplug", "VBD.unplug_force", "VBD.unplug_force_no_safety_check", "VBD.assert_attachable")
	disk := s.vdi()
	vbd := s.vbd(drive(s.vm, disk, "1"))
	s.Refused(api.ErrVMBadPowerState(s.vm.String(), "running", "halted"), "VBD.plug", vbd.String())
	s.Must(nil, "VBD.assert_attachable", vbd.String())
	s.start()
	s.Refused(api.ErrDeviceAlreadyAttached(vbd.String()), "VBD.plug", vbd.String())
	for _, unplug := range []string{"VBD.unplug", "VBD.unplug_force", "VBD.unplug_force_no_safety_check"} {
		s.Must(nil, unplug, vbd.String())
		s.agrees(unplug)
		s.holds(unplug, nil, nil)
		s.Refused(api.ErrDeviceAlreadyDetached(vbd.String()), "VBD.unplug", vbd.String())
		s.Must(nil, "VBD.plug", vbd.String())
		s.agrees("plugged")
		s.holds("plugged", []api.VDIRef{disk}, nil)
	}
	s.hv.HoldDevices(wiretest.Get(s.Server, s.vm).UUID, true)
	s.Refused(api.ErrDeviceDetachTimeout("VBD", vbd.String()), "VBD.unplug", vbd.String())
	s.agrees("held by the guest")
	s.holds("held by the guest", []api.VDIRef{disk}, nil)
	second := s.vbd(drive(s.vm, disk, "2"))
	s.Refused(api.ErrVDIInUse(disk.String(), "plug"), "VBD.plug", second.String())
	s.Refused(api.ErrVDIInUse(disk.String(), "attach"), "VBD.assert_attachable", second.String())
	fixed := wiretest.Get(s.Server, vbd)
	if fixed.Unpluggable {
		s.Must(nil, "VBD.set_unpluggable", vbd.String(), false)
		s.Refused(api.ErrVBDNotUnpluggable(vbd.String()), "VBD.unplug", vbd.String())
	}
}

// TestVBDPlugFails: what the domain does not get the host does not keep; where the
// answer was lost, the domain is asked.
func TestVBDPlugFails(t *testing.T) {
	s := newStack(t)
	disk := s.vdi()
	s.start()
	vbd := s.vbd(drive(s.vm, disk, "1"))
	s.hv.FailNext("AttachDisk", hypervisor.ErrUnsupported)
	if _, err := s.Call("VBD.plug", vbd.String()); err == nil {
		t.Error("plugged")
	}
	s.agrees("not plugged")
	s.holds("not plugged", nil, nil)
	s.hv.FailNext("AttachDisk", hypervisor.ErrUnknownOutcome) // without effect
	if _, err := s.Call("VBD.plug", vbd.String()); err == nil {
		t.Error("plugged")
	}
	s.agrees("lost")
	s.holds("lost", nil, nil)
	s.Must(nil, "VBD.plug", vbd.String())
	s.hv.FailNext("DetachDisk", hypervisor.ErrUnknownOutcome)
	if _, err := s.Call("VBD.unplug", vbd.String()); err == nil {
		t.Error("unplugged")
	}
	s.agrees("lost again")
	s.holds("lost again", []api.VDIRef{disk}, nil)
}

// TestLateUnplug: a guest that gives a disk up after the call has given up on it.
func TestLateUnplug(t *testing.T) {
	s := newStack(t)
	vbd := s.vbd(drive(s.vm, s.vdi(), "1"))
	s.start()
	uuid := wiretest.Get(s.Server, s.vm).UUID
	s.hv.HoldDevices(uuid, true)
	s.Refused(api.ErrDeviceDetachTimeout("VBD", vbd.String()), "VBD.unplug", vbd.String())
	s.hv.HoldDevices(uuid, false)
	if err := s.hv.DetachDisk(t.Context(), uuid, wiretest.Get(s.Server, vbd).UUID); err != nil {
		t.Fatal(err)
	}
	s.Until("the row says so", func() bool { return !wiretest.Get(s.Server, vbd).CurrentlyAttached })
	s.Must(nil, "VM.hard_shutdown", s.vm.String())
	s.holds("stopped", nil, nil)
}

// TestPlugIsRecordedLater: the database refuses to record a plug; the drive is not
// locked for good, and its row comes true.
func TestPlugIsRecordedLater(t *testing.T) {
	s := newStack(t)
	s.start()
	vbd, refused := s.vbd(drive(s.vm, s.vdi(), "1")), 0
	s.Engine.Fail = func(b db.Batch) error {
		for _, p := range b.Puts {
			if refused < 2 && strings.Contains(string(p.Value), "sdb") || refused == 1 && strings.Contains(p.Key, "VBD") {
				refused++
				return errors.New("no quorum")
			}
		}
		return nil
	}
	if _, err := s.Call("VBD.plug", vbd.String()); err == nil {
		t.Error("plugged without a record")
	}
	s.Until("the row is right", func() bool {
		v := wiretest.Get(s.Server, vbd)
		return v.CurrentlyAttached && len(v.CurrentOperations) == 0
	})
	s.agrees("at last")
}

// TestLookOvertaken: what is seen of a domain is not written down when the domain
// has changed since; a plugged disk would be taken for absent, and let go.
func TestLookOvertaken(t *testing.T) {
	s := newStack(t)
	disk := s.vdi()
	vbd := s.vbd(drive(s.vm, disk, "1"))
	s.start()
	for _, method := range []string{"VBD.unplug", "VBD.plug"} {
		s.looked = func() { s.Must(nil, method, vbd.String()) }
		if _, err := s.devices.Found(t.Context(), s.host, s.vm); err == nil {
			t.Errorf("%s meanwhile: nothing noticed", method)
		}
		s.agrees(method)
	}
	s.holds("plugged", []api.VDIRef{disk}, nil)
	if _, err := s.devices.Found(t.Context(), s.host, s.vm); err != nil {
		t.Error(err)
	}
	s.agrees("found")
}

// TestSharedDisk: a sharable disk stays attached until its last user lets go.
func TestSharedDisk(t *testing.T) {
	s := newStack(t)
	disk := s.vdi(func(v *api.VDI) { v.Sharable = true })
	s.vbd(drive(s.vm, disk, "0"))
	other := s.machine("two", strings.TrimSuffix(wiretest.Get(s.Server, s.vm).PVKernel, "/vmlinuz"))
	s.vbd(drive(other, disk, "0"))
	s.start()
	s.Must(nil, "VM.start", other.String(), false, false)
	s.Must(nil, "VM.hard_shutdown", s.vm.String())
	s.holds("one of two", []api.VDIRef{disk}, nil)
	s.Must(nil, "VM.hard_shutdown", other.String())
	s.holds("none", nil, nil)
}

// TestOneWriter: a disk that is not sharable is in one running machine.
func TestOneWriter(t *testing.T) {
	s := newStack(t)
	disk := s.vdi()
	s.vbd(drive(s.vm, disk, "0"))
	other := s.machine("two", strings.TrimSuffix(wiretest.Get(s.Server, s.vm).PVKernel, "/vmlinuz"))
	s.vbd(drive(other, disk, "0"))
	s.start()
	s.Refused(api.ErrVDIInUse(disk.String(), "attach"), "VM.start", other.String(), false, false)
	s.Must(nil, "VM.hard_shutdown", s.vm.String())
	s.Must(nil, "VM.start", other.String(), false, false)
	s.holds("the other", []api.VDIRef{disk}, nil)
}

func TestMedia(t *testing.T) {
	s := newStack(t)
	s.Covers("VBD.insert", "VBD.eject")
	iso, hidden := s.vdi(), s.vdi(func(v *api.VDI) { v.Managed = false })
	vbd := s.vbd(cd(s.vm, "", "3"))
	disk := s.vbd(drive(s.vm, s.vdi(), "0"))
	s.Refused(api.ErrVBDIsEmpty(vbd.String()), "VBD.eject", vbd.String())
	s.Refused(api.ErrVBDNotRemovableMedia(disk.String()), "VBD.eject", disk.String())
	s.Refused(api.ErrVDINotManaged(hidden.String()), "VBD.insert", vbd.String(), hidden.String())
	s.Must(nil, "VBD.insert", vbd.String(), iso.String()) // a halted machine's
	if v := wiretest.Get(s.Server, vbd); v.Empty || v.VDI != iso {
		t.Errorf("inserted: %+v", v)
	}
	s.Must(nil, "VBD.eject", vbd.String())
	s.start()
	held := s.at.Disks()
	s.Must(nil, "VBD.insert", vbd.String(), iso.String())
	s.agrees("inserted")
	s.holds("inserted", append(held, iso), nil)
	s.Refused(api.ErrVBDNotEmpty(vbd.String()), "VBD.insert", vbd.String(), iso.String())
	s.hv.FailNext("ChangeMedia", hypervisor.ErrBusy)
	s.Refused(api.ErrVBDTrayLocked(vbd.String()), "VBD.eject", vbd.String())
	s.agrees("tray locked")
	s.Must(nil, "VBD.eject", vbd.String())
	s.agrees("ejected")
	s.holds("ejected", held, nil)
	s.hv.FailNext("ChangeMedia", hypervisor.ErrUnsupported)
	if _, err := s.Call("VBD.insert", vbd.String(), iso.String()); err == nil {
		t.Error("inserted")
	}
	s.agrees("not inserted")
	s.holds("not inserted", held, nil)
}

func TestVBDSettings(t *testing.T) {
	s := newStack(t)
	s.Covers("VBD.set_mode", "VBD.set_type", "VBD.set_userdevice")
	vbd, drivee := s.vbd(drive(s.vm, s.vdi(), "0")), s.vbd(cd(s.vm, "", "3"))
	s.Must(nil, "VBD.set_mode", vbd.String(), "RO")
	s.Must(nil, "VBD.set_userdevice", vbd.String(), "5")
	if v := wiretest.Get(s.Server, vbd); v.Mode != api.VBDModeRO || v.Userdevice != "5" {
		t.Errorf("%+v", v)
	}
	s.Refused(api.ErrVBDCdsMustBeReadonly(), "VBD.set_mode", drivee.String(), "RW")
	s.Refused(api.ErrVBDNotRemovableMedia("in constructor"), "VBD.set_type", drivee.String(), "Disk")
	s.Must(nil, "VBD.set_type", vbd.String(), "CD")
	s.Refused(api.ErrVBDCdsMustBeReadonly(), "VBD.set_mode", vbd.String(), "RW")
	s.Must(nil, "VBD.set_type", vbd.String(), "Disk")
	s.Refused(api.ErrDeviceAlreadyExists("3"), "VBD.set_userdevice", vbd.String(), "3")
	s.Refused(api.ErrInvalidDevice("no"), "VBD.set_userdevice", vbd.String(), "no")
	s.start()
	if d, _ := s.hardware().Disk(wiretest.Get(s.Server, vbd).UUID); !d.ReadOnly || d.Device != "sdf" {
		t.Errorf("the domain has %+v", d)
	}
	s.Refused(api.ErrVMBadPowerState(s.vm.String(), "halted", "running"), "VBD.set_mode", vbd.String(), "RW")
	s.Refused(api.ErrVMBadPowerState(s.vm.String(), "halted", "running"), "VBD.set_type", vbd.String(), "CD")
}
