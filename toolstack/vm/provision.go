package vm

import (
	"context"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/device"
	"cairn/toolstack/operation"
	"cairn/toolstack/storage"
	"cairn/toolstack/vm/template"
)

// provision turns a copy of a template into a VM: it makes the disks that the
// template describes, all or none.
func (m *Manager) provision(c *api.Call, ref api.VMRef) error {
	var wanted []storage.CreateSpec
	var disks template.Disks
	o, err := m.begin(c, ref, api.VMOperationsProvision, func(tx *db.Tx, vm *api.VM) (err error) {
		text := vm.OtherConfig[template.DisksKey]
		if disks, err = template.ParseDisks(text); err != nil {
			return api.ErrInvalidValue("other_config:"+template.DisksKey, err.Error())
		}
		if wanted, err = m.diskSpecs(tx, vm, disks); err != nil {
			return err
		}
		return freeDevices(tx, ref, vm, disks)
	})
	if err != nil {
		return err
	}
	j := m.newJob()
	defer j.end()
	made := make([]api.VDIRef, len(wanted))
	for i, spec := range wanted {
		if made[i], err = m.cfg.Disks.Create(j.making(c), spec); err != nil {
			return o.end(c, asCancelled(c, err), nil)
		}
		c.Task.Set(float64(i+1) / float64(len(wanted)+1))
	}
	return o.finish(c, func(tx *db.Tx, vm *api.VM) error {
		delete(vm.OtherConfig, template.DisksKey)
		vm.IsATemplate = false
		if vm.OtherConfig[device.MACSeed] == "" {
			device.Seed(vm)
		}
		for i, d := range disks {
			if err := insertDisk(tx, ref, d, made[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// diskSpecs says which disks to make and where: on the SR the template names, or on
// the pool's default.
func (m *Manager) diskSpecs(r db.Reader, vm *api.VM, disks template.Disks) ([]storage.CreateSpec, error) {
	if len(disks) > 0 && m.cfg.Disks == nil {
		return nil, api.ErrNotImplemented("VM.provision of disks")
	}
	var specs []storage.CreateSpec
	for _, d := range disks {
		sr, err := chosenSR(r, d.SR)
		if err != nil {
			return nil, err
		}
		specs = append(specs, storage.CreateSpec{
			SR: sr, Size: d.Size, Type: d.Type, Name: vm.NameLabel + " " + d.Device,
			Description: "Created by template provisioner",
		})
	}
	return specs, nil
}

func chosenSR(r db.Reader, uuid string) (api.SRRef, error) {
	if uuid != "" {
		return db.ByUUID[api.SR](r, uuid)
	}
	sr := poolDefault(r, func(p *api.Pool) api.SRRef { return p.DefaultSR })
	if _, err := db.Get(r, sr); err != nil {
		return "", api.ErrDefaultSRNotFound(sr.String())
	}
	return sr, nil
}

// poolDefault reads a setting of the one pool.
func poolDefault(r db.Reader, at func(*api.Pool) api.SRRef) api.SRRef {
	for _, p := range db.All[api.Pool](r) {
		return at(p)
	}
	return ""
}

// freeDevices refuses disks for places that are taken.
func freeDevices(r db.Reader, ref api.VMRef, vm *api.VM, disks template.Disks) error {
	for _, vbd := range vm.VBDs {
		v, err := db.Get(r, vbd)
		if err != nil {
			continue
		}
		for _, d := range disks {
			if d.Device == v.Userdevice {
				return api.ErrDeviceAlreadyExists(d.Device)
			}
		}
	}
	if len(vm.VBDs)+len(disks) > maxVBDs {
		return api.ErrInvalidDevice(strconv.Itoa(maxVBDs))
	}
	return nil
}

// insertDisk puts a new disk into a new drive.
func insertDisk(tx *db.Tx, vm api.VMRef, d template.Disk, vdi api.VDIRef) error {
	if err := keep(tx, vdi); err != nil {
		return err
	}
	v := api.NewVBD()
	v.UUID, v.VM, v.VDI = api.NewUUID(), vm, vdi
	v.Userdevice, v.Bootable = d.Device, d.Bootable
	v.Mode, v.Type, v.Unpluggable = api.VBDModeRW, api.VBDTypeDisk, d.Type != api.VDITypeSystem
	ref := db.Insert(tx, v)
	v, err := db.Edit(tx, ref)
	if err == nil {
		operation.VBD.Renew(tx, ref, v)
	}
	return err
}

// room refuses a disk for which an SR has no room, before anything is begun.
func room(r db.Reader, ref api.SRRef, need int64) error {
	sr, err := db.Get(r, ref)
	if err != nil {
		return err
	}
	if free := sr.PhysicalSize - sr.PhysicalUtilisation; sr.PhysicalSize > 0 && free < need {
		return api.ErrSRSuspendSpaceInsufficient(ref.String())
	}
	return nil
}

// finishing is a context for what must be recorded also when the caller has gone.
func finishing(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), finishTimeout)
}
