package xe

import (
	"context"
	"fmt"
)

// commands is the code of the explicit commands, by name.
var commands = map[string]func(*session, context.Context) error{
	"vm-install":       (*session).vmInstall,
	"vm-create":        (*session).vmCreate,
	"vm-clone":         (*session).vmClone,
	"vm-start":         (*session).vmStart,
	"vm-shutdown":      (*session).vmShutdown,
	"vm-reboot":        (*session).vmReboot,
	"vm-destroy":       (*session).vmDestroy,
	"vm-uninstall":     (*session).vmUninstall,
	"console":          (*session).console,
	"host-call-plugin": (*session).hostCallPlugin,
	"host-disable":     (*session).hostDisable,
	"host-enable":      (*session).hostEnable,
	"host-shutdown":    (*session).hostShutdown,
	"host-reboot":      (*session).hostReboot,
}

// vmInstall makes a VM from a template and prints its uuid. A VM that cannot
// be provisioned is taken away again: a half-installed VM helps nobody.
func (s *session) vmInstall(ctx context.Context) error {
	template, ok := s.Params.Get("template")
	if !ok {
		return usage("vm-install: required parameter not found: template")
	}
	for _, name := range []string{"sr-uuid", "sr-name-label", "copy-bios-strings-from"} {
		if _, ok := s.Params.Get(name); ok {
			return fmt.Errorf("vm-install %s=: not available yet", name)
		}
	}
	name, _ := s.Params.Get("new-name-label")
	ref, err := s.one(ctx, "VM", template)
	if err != nil {
		return err
	}
	var vm string
	if err := s.api.Call(ctx, "VM.clone", &vm, ref, name); err != nil {
		return err
	}
	if err := s.api.Call(ctx, "VM.provision", nil, vm); err != nil {
		if undo := s.api.Call(ctx, "VM.destroy", nil, vm); undo != nil {
			return fmt.Errorf("%w (and the clone could not be removed: %w)", err, undo)
		}
		return err
	}
	return s.printUUID(ctx, vm)
}

func (s *session) printUUID(ctx context.Context, vm string) error {
	var uuid string
	if err := s.api.Call(ctx, "VM.get_uuid", &uuid, vm); err != nil {
		return err
	}
	return s.line(uuid)
}

// vmCreate makes a VM with nothing but a name; the rest is set afterwards.
func (s *session) vmCreate(ctx context.Context) error {
	name, _ := s.Params.Get("name-label")
	text, _ := s.Params.Get("name-description")
	var vm string
	if err := s.api.Call(ctx, "VM.create", &vm, emptyVM(name, text)); err != nil {
		return err
	}
	return s.printUUID(ctx, vm)
}

// defaultMemory is what a VM made by vm-create has, in bytes, until it is set.
const defaultMemory = 256 << 20

// emptyVM is a constructor's record: every field without a default of its own.
func emptyVM(name, text string) map[string]any {
	none := map[string]string{}
	return map[string]any{
		"name_label": name, "name_description": text,
		"user_version": 1, "is_a_template": false, "affinity": nullRef,
		"memory_static_max": defaultMemory, "memory_dynamic_max": defaultMemory,
		"memory_dynamic_min": defaultMemory, "memory_static_min": 0, "memory_target": 0,
		"VCPUs_params": none, "VCPUs_max": 1, "VCPUs_at_startup": 1,
		"actions_after_shutdown": "destroy", "actions_after_reboot": "restart", "actions_after_crash": "restart",
		"PV_bootloader": "", "PV_kernel": "", "PV_ramdisk": "", "PV_args": "", "PV_bootloader_args": "", "PV_legacy_args": "",
		"HVM_boot_policy": "BIOS order", "HVM_boot_params": none, "HVM_shadow_multiplier": 1.0,
		"platform": none, "PCI_bus": "", "other_config": none, "recommendations": "", "xenstore_data": none,
		"ha_always_run": false, "ha_restart_priority": "", "tags": []string{}, "blocked_operations": none,
	}
}

func (s *session) vmClone(ctx context.Context) error {
	name, _ := s.Params.Get("new-name-label")
	text, described := s.Params.Get("new-name-description")
	return s.each(ctx, "vm", func(r record) error {
		var vm string
		if err := s.api.Call(ctx, "VM.clone", &vm, r.ref, name); err != nil {
			return err
		}
		if described {
			if err := s.api.Call(ctx, "VM.set_name_description", nil, vm, text); err != nil {
				return err
			}
		}
		return s.printUUID(ctx, vm)
	}, "new-name-label", "new-name-description")
}

func (s *session) vmStart(ctx context.Context) error {
	paused, _ := s.Params.Get("paused")
	on, placed := s.Params.Get("on")
	return s.each(ctx, "vm", func(r record) error {
		if !placed {
			return s.api.Call(ctx, "VM.start", nil, r.ref, paused == "true", s.Force)
		}
		host, err := s.one(ctx, "host", on)
		if err != nil {
			return err
		}
		return s.api.Call(ctx, "VM.start_on", nil, r.ref, host, paused == "true", s.Force)
	}, "on", "paused")
}

// hardOr picks the message: the polite one, or with --force the hard one.
func (s *session) hardOr(clean, hard string) string {
	if s.Force {
		return hard
	}
	return clean
}

func (s *session) vmShutdown(ctx context.Context) error {
	method := s.hardOr("VM.clean_shutdown", "VM.hard_shutdown")
	return s.each(ctx, "vm", func(r record) error { return s.api.Call(ctx, method, nil, r.ref) })
}

func (s *session) vmReboot(ctx context.Context) error {
	method := s.hardOr("VM.clean_reboot", "VM.hard_reboot")
	return s.each(ctx, "vm", func(r record) error { return s.api.Call(ctx, method, nil, r.ref) })
}

// vmDestroy removes the record of one VM; its disks stay.
func (s *session) vmDestroy(ctx context.Context) error {
	uuid, _ := s.Params.Get("uuid")
	r, err := s.byUUID(ctx, "VM", uuid)
	if err != nil {
		return err
	}
	return s.api.Call(ctx, "VM.destroy", nil, r.ref)
}

// vmUninstall stops and removes VMs, after asking unless --force is given.
func (s *session) vmUninstall(ctx context.Context) error {
	list, err := s.selected(ctx, "vm")
	if err != nil {
		return err
	}
	if !s.Force && !s.confirm(list) {
		return fmt.Errorf("vm-uninstall: not confirmed, nothing was changed")
	}
	for _, r := range list {
		if r.values["power_state"] != "Halted" {
			if err := s.api.Call(ctx, "VM.hard_shutdown", nil, r.ref); err != nil {
				return err
			}
		}
		if err := s.api.Call(ctx, "VM.destroy", nil, r.ref); err != nil {
			return err
		}
	}
	return nil
}

// confirm shows what will go and reads one line.
func (s *session) confirm(list []record) bool {
	fmt.Fprintln(s.out, "The following items will be removed:")
	for _, r := range list {
		fmt.Fprintf(s.out, "VM : %s (%v)\n", r.uuid(), r.values["name_label"])
	}
	fmt.Fprintln(s.out, "Type 'yes' to continue")
	var answer string
	_, err := fmt.Fscanln(s.in, &answer)
	return err == nil && answer == "yes"
}
