package xe

import (
	"context"
	"fmt"
	"slices"
)

// Columns of the lists of a VM's disks.
const (
	vbdColumns = "uuid,vm-name-label,userdevice"
	cdColumns  = "uuid,vm-name-label,userdevice,empty"
	vdiColumns = "uuid,name-label,sr-name-label,virtual-size"
)

func (s *session) vmDiskList(ctx context.Context) error { return s.driveList(ctx, "Disk", vbdColumns) }
func (s *session) vmCDList(ctx context.Context) error   { return s.driveList(ctx, "CD", cdColumns) }

// snapshotDiskList lists the disks of a snapshot, selected as a VM is or named
// by its uuid.
func (s *session) snapshotDiskList(ctx context.Context) error {
	uuid, ok := s.Params.Get("snapshot-uuid|uuid")
	if !ok {
		return missingParam("snapshot-uuid")
	}
	r, err := s.byUUID(ctx, "VM", uuid)
	if err != nil {
		return err
	}
	return s.printDrives(ctx, r, "Disk", vbdColumns)
}

func (s *session) driveList(ctx context.Context, kind, columns string) error {
	list, err := s.selected(ctx, "vm", "vbd-params", "vdi-params")
	if err != nil {
		return err
	}
	return s.each(list, func(r record) error { return s.printDrives(ctx, r, kind, columns) })
}

// printDrives shows each drive of a VM and the disk in it.
func (s *session) printDrives(ctx context.Context, vm record, kind, columns string) error {
	drives, err := s.drives(ctx, vm, kind)
	if err != nil {
		return err
	}
	for i, vbd := range drives {
		s.out.say("%s %d VBD:", kind, i)
		if err := s.printAs(ctx, "vbd", vbd, "vbd-params", columns); err != nil {
			return err
		}
		vdi, err := s.target(ctx, "VDI", vbd.text("VDI"))
		if err != nil {
			return err
		}
		if vdi == nil {
			continue
		}
		s.out.say("%s %d VDI:", kind, i)
		if err := s.printAs(ctx, "vdi", record{vbd.text("VDI"), vdi}, "vdi-params", vdiColumns); err != nil {
			return err
		}
	}
	return nil
}

// printAs prints a record with the columns that a parameter names, or these.
func (s *session) printAs(ctx context.Context, class string, r record, param, columns string) error {
	c := s.cat.byName[class]
	given := s.Params
	defer func() { s.Params = given }()
	if _, ok := given.Get(param); !ok {
		s.Params = append(given[:len(given):len(given)], Param{Name: param, Value: columns})
	}
	fields, err := s.columns(c, param)
	if err != nil {
		return err
	}
	return s.print(ctx, c, r, fields, true)
}

// drives are the VM's block devices of a kind, by their number.
func (s *session) drives(ctx context.Context, vm record, kind string) ([]record, error) {
	var list []record
	refs, _ := vm.values["VBDs"].([]any)
	for _, ref := range refs {
		v, err := s.target(ctx, "VBD", fmt.Sprint(ref))
		if err != nil {
			return nil, err
		}
		if v.text("type") == kind {
			list = append(list, record{fmt.Sprint(ref), v})
		}
	}
	slices.SortFunc(list, func(a, b record) int { return compareDevices(a.text("userdevice"), b.text("userdevice")) })
	return list, nil
}

// compareDevices orders device numbers by value: 2 before 10.
func compareDevices(a, b string) int {
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// vmDiskAdd makes a new disk and gives it to a VM.
func (s *session) vmDiskAdd(ctx context.Context) error {
	size, err := s.plainArgument("bytes", "disk-size")
	if err != nil {
		return err
	}
	device, _ := s.Params.Get("device")
	list, err := s.selected(ctx, "vm", "disk-size", "device", "sr-uuid")
	if err != nil {
		return err
	}
	sr, err := s.diskSR(ctx)
	if err != nil {
		return err
	}
	return s.each(list, func(r record) error {
		var vdi string
		name := "Created by xe for " + r.text("name_label")
		if err := s.api.Call(ctx, "VDI.create", &vdi, newDisk(name, sr, size)); err != nil {
			return err
		}
		err := s.attach(ctx, newDrive(r.ref, vdi, device, "RW", "Disk"), r)
		if err != nil {
			_ = s.api.Call(context.WithoutCancel(ctx), "VDI.destroy", nil, vdi)
		}
		return err
	})
}

// diskSR is the SR the user names, or the pool's default.
func (s *session) diskSR(ctx context.Context) (any, error) {
	if uuid, ok := s.Params.Get("sr-uuid"); ok {
		return s.refOf(ctx, "SR", uuid)
	}
	pool, err := s.poolArg(ctx, "")
	if err != nil {
		return nil, err
	}
	var sr string
	if err := s.api.Call(ctx, "pool.get_default_SR", &sr, pool); err != nil {
		return nil, err
	}
	if sr == nullRef {
		return nil, fmt.Errorf("the pool has no default SR: give sr-uuid=")
	}
	return sr, nil
}

func newDisk(name string, sr, size any) map[string]any {
	none := map[string]string{}
	return map[string]any{
		"name_label": name, "name_description": "", "SR": sr, "virtual_size": size, "type": "user", "sharable": false,
		"read_only": false, "other_config": none, "xenstore_data": none, "sm_config": none, "tags": []string{},
	}
}

func newDrive(vm, vdi, device, mode, kind string) map[string]any {
	none := map[string]string{}
	return map[string]any{
		"VM": vm, "VDI": vdi, "userdevice": device, "bootable": false, "mode": mode, "type": kind, "unpluggable": true,
		"empty": vdi == nullRef, "other_config": none, "qos_algorithm_type": "", "qos_algorithm_params": none,
	}
}

// attach makes a drive and plugs it in where the VM runs. A drive that cannot
// be plugged in now is there after the next start.
func (s *session) attach(ctx context.Context, drive map[string]any, vm record) error {
	var vbd string
	if err := s.api.Call(ctx, "VBD.create", &vbd, drive); err != nil {
		return err
	}
	if vm.text("power_state") != "Running" {
		return nil
	}
	if err := s.api.Call(ctx, "VBD.plug", nil, vbd); err != nil {
		fmt.Fprintf(s.errOut, "xe: not plugged in before the VM starts again: %v\n", err)
	}
	return nil
}

// vmDiskRemove takes a disk out of a VM and destroys it.
func (s *session) vmDiskRemove(ctx context.Context) error {
	device, _ := s.Params.Get("device")
	list, err := s.selected(ctx, "vm", "device")
	if err != nil {
		return err
	}
	return s.each(list, func(r record) error {
		drives, err := s.drives(ctx, r, "Disk")
		if err != nil {
			return err
		}
		for _, vbd := range drives {
			if vbd.text("userdevice") == device || vbd.text("device") == device {
				return s.detach(ctx, vbd, true)
			}
		}
		return fmt.Errorf("device %s: %w", device, errNoMatch)
	})
}

func (s *session) detach(ctx context.Context, vbd record, destroy bool) error {
	if vbd.values["currently_attached"] == true {
		if err := s.api.Call(ctx, "VBD.unplug", nil, vbd.ref); err != nil {
			return err
		}
	}
	if err := s.api.Call(ctx, "VBD.destroy", nil, vbd.ref); err != nil {
		return err
	}
	if vdi := vbd.text("VDI"); destroy && vdi != nullRef {
		return s.api.Call(ctx, "VDI.destroy", nil, vdi)
	}
	return nil
}

// cd finds the CD that cd-name= names, by name or uuid.
func (s *session) cd(ctx context.Context) (string, error) {
	name, _ := s.Params.Get("cd-name")
	return s.one(ctx, "VDI", name)
}

func (s *session) vmCDAdd(ctx context.Context) error {
	device, _ := s.Params.Get("device")
	cd, err := s.cd(ctx)
	if err != nil {
		return err
	}
	return s.eachVM(ctx, func(r record) error {
		return s.attach(ctx, newDrive(r.ref, cd, device, "RO", "CD"), r)
	})
}

func (s *session) eachVM(ctx context.Context, fn func(record) error) error {
	list, err := s.selected(ctx, "vm", "cd-name", "device", "params")
	if err != nil {
		return err
	}
	return s.each(list, fn)
}

func (s *session) vmCDRemove(ctx context.Context) error {
	cd, err := s.cd(ctx)
	if err != nil {
		return err
	}
	return s.withDrive(ctx, "with this disc", func(vbd record) bool { return vbd.text("VDI") == cd },
		func(vbd record) error { return s.detach(ctx, vbd, false) })
}

func (s *session) vmCDInsert(ctx context.Context) error {
	cd, err := s.cd(ctx)
	if err != nil {
		return err
	}
	return s.withDrive(ctx, "without a disc", func(vbd record) bool { return vbd.values["empty"] == true },
		func(vbd record) error { return s.api.Call(ctx, "VBD.insert", nil, vbd.ref, cd) })
}

func (s *session) vmCDEject(ctx context.Context) error {
	return s.withDrive(ctx, "with a disc in it", func(vbd record) bool { return vbd.values["empty"] != true },
		func(vbd record) error { return s.api.Call(ctx, "VBD.eject", nil, vbd.ref) })
}

// withDrive does something to the one CD drive of each VM that fits what is said.
func (s *session) withDrive(ctx context.Context, what string, fits func(record) bool, fn func(record) error) error {
	return s.eachVM(ctx, func(vm record) error {
		drives, err := s.drives(ctx, vm, "CD")
		if err != nil {
			return err
		}
		drives = slices.DeleteFunc(drives, func(r record) bool { return !fits(r) })
		switch len(drives) {
		case 1:
			return fn(drives[0])
		case 0:
			return fmt.Errorf("%s has no CD drive %s", vm.named(), what)
		default:
			return fmt.Errorf("%s has %d CD drives %s: use vbd-insert, vbd-eject or vbd-destroy", vm.named(), len(drives), what)
		}
	})
}

// vmVIFList lists the network interfaces of VMs.
func (s *session) vmVIFList(ctx context.Context) error {
	return s.eachVM(ctx, func(vm record) error {
		refs, _ := vm.values["VIFs"].([]any)
		for _, ref := range refs {
			v, err := s.target(ctx, "VIF", fmt.Sprint(ref))
			if err != nil {
				return err
			}
			if err := s.printAs(ctx, "vif", record{fmt.Sprint(ref), v}, "params", "uuid,vm-name-label,device,MAC,network-uuid,network-name-label"); err != nil {
				return err
			}
		}
		return nil
	})
}

// cdList lists the disks in repositories of CD images.
func (s *session) cdList(ctx context.Context) error {
	srs, err := s.records(ctx, "SR")
	if err != nil {
		return err
	}
	isCD := map[string]bool{}
	for _, sr := range srs {
		isCD[sr.ref] = sr.text("content_type") == "iso"
	}
	vdis, err := s.match(ctx, s.cat.byName["vdi"], s.Params.Without("params").Without(standard...))
	if err != nil {
		return err
	}
	for _, vdi := range vdis {
		if !isCD[vdi.text("SR")] {
			continue
		}
		if err := s.printAs(ctx, "vdi", vdi, "params", "name-label,uuid"); err != nil {
			return err
		}
	}
	return nil
}
