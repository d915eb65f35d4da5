package xe

import (
	"context"
	"fmt"
	"strings"
)

// inGo is the code of the commands that are more than a few messages.
var inGo = map[string]func(*session, context.Context) error{
	"vm-install":                            (*session).vmInstall,
	"vm-create":                             (*session).vmCreate,
	"vm-uninstall":                          (*session).vmUninstall,
	"snapshot-uninstall":                    (*session).snapshotUninstall,
	"template-uninstall":                    (*session).templateUninstall,
	"vm-is-bios-customized":                 (*session).vmIsBIOSCustomized,
	"console":                               (*session).console,
	"vm-disk-list":                          (*session).vmDiskList,
	"vm-cd-list":                            (*session).vmCDList,
	"snapshot-disk-list":                    (*session).snapshotDiskList,
	"vm-disk-add":                           (*session).vmDiskAdd,
	"vm-disk-remove":                        (*session).vmDiskRemove,
	"vm-cd-add":                             (*session).vmCDAdd,
	"vm-cd-remove":                          (*session).vmCDRemove,
	"vm-cd-insert":                          (*session).vmCDInsert,
	"vm-cd-eject":                           (*session).vmCDEject,
	"vm-vif-list":                           (*session).vmVIFList,
	"cd-list":                               (*session).cdList,
	"vlan-destroy":                          (*session).vlanDestroy,
	"hostdriver-select":                     (*session).hostdriverSelect,
	"subject-add":                           (*session).subjectAdd,
	"event-wait":                            (*session).eventWait,
	"diagnostic-license-status":             (*session).licenseStatus,
	"diagnostic-vdi-status":                 (*session).vdiStatus,
	"diagnostic-vm-status":                  (*session).vmStatus,
	"session-subject-identifier-logout-all": (*session).logoutAll,
}

// vmInstall makes a VM from a template and prints its uuid. A VM that cannot
// be provisioned is taken away again: a half-installed VM helps nobody.
func (s *session) vmInstall(ctx context.Context) error {
	ref, err := s.template(ctx)
	if err != nil {
		return err
	}
	sr, err := s.installSR(ctx)
	if err != nil {
		return err
	}
	name, _ := s.Params.Get("new-name-label")
	var vm string
	if err := s.api.Call(ctx, "VM.clone", &vm, ref, name); err != nil {
		return err
	}
	if err := s.prepare(ctx, vm, sr); err != nil {
		if undo := s.api.Call(context.WithoutCancel(ctx), "VM.destroy", nil, vm); undo != nil {
			return fmt.Errorf("%w (and the clone could not be removed: %w)", err, undo)
		}
		return err
	}
	return s.answerUUIDs(ctx, "VM", vm)
}

// template is the template the user names, by name or uuid. A VM of the same name
// is not meant.
func (s *session) template(ctx context.Context) (string, error) {
	name, ok := s.Params.Get("template|template-uuid")
	if !ok {
		return "", missingParam("template")
	}
	if strings.HasPrefix(name, "OpaqueRef:") {
		return name, nil
	}
	all, err := s.match(ctx, s.cat.byName["template"], nil)
	if err != nil {
		return "", err
	}
	var refs []string
	for _, r := range all {
		if r.uuid() == name || r.text("name_label") == name {
			refs = append(refs, r.ref)
		}
	}
	switch len(refs) {
	case 1:
		return refs[0], nil
	case 0:
		return "", fmt.Errorf("template %q: %w", name, errNoMatch)
	default:
		return "", fmt.Errorf("%d templates are named %q: give the uuid", len(refs), name)
	}
}

// prepare makes a clone ready: disks on the SR the user wants, BIOS strings,
// provisioning.
func (s *session) prepare(ctx context.Context, vm, sr string) error {
	if sr != "" {
		if err := s.moveDisks(ctx, vm, sr); err != nil {
			return err
		}
	}
	if uuid, ok := s.Params.Get("copy-bios-strings-from"); ok {
		host, err := s.refOf(ctx, "host", uuid)
		if err != nil {
			return err
		}
		if err := s.api.Call(ctx, "VM.copy_bios_strings", nil, vm, host); err != nil {
			return err
		}
	}
	return s.api.Call(ctx, "VM.provision", nil, vm)
}

// installSR is the uuid of the SR the user wants the disks on, or "".
func (s *session) installSR(ctx context.Context) (string, error) {
	if uuid, ok := s.Params.Get("sr-uuid"); ok {
		_, err := s.refOf(ctx, "SR", uuid)
		return uuid, err
	}
	name, ok := s.Params.Get("sr-name-label")
	if !ok {
		return "", nil
	}
	ref, err := s.one(ctx, "SR", name)
	if err != nil {
		return "", err
	}
	sr, err := s.target(ctx, "SR", ref)
	return sr.text("uuid"), err
}

// moveDisks rewrites the description of a template's disks, which is XML in
// other_config, so that every disk is made on one SR.
func (s *session) moveDisks(ctx context.Context, vm, sr string) error {
	var config map[string]string
	if err := s.api.Call(ctx, "VM.get_other_config", &config, vm); err != nil {
		return err
	}
	disks, ok := config["disks"]
	if !ok {
		return nil
	}
	return s.send(ctx,
		write{"VM.remove_from_other_config", []any{vm, "disks"}},
		write{"VM.add_to_other_config", []any{vm, "disks", setAttribute(disks, "sr", sr)}})
}

// setAttribute gives every occurrence of an XML attribute another value. The
// text is written by toolstacks only, one form of quotes at a time.
func setAttribute(xml, name, value string) string {
	var b strings.Builder
	for {
		i := strings.Index(xml, " "+name+"=")
		if i < 0 || i+len(name)+3 > len(xml) {
			return b.String() + xml
		}
		start := i + len(name) + 2
		quote := xml[start : start+1]
		end := strings.Index(xml[start+1:], quote)
		if end < 0 || quote != `"` && quote != "'" {
			return b.String() + xml
		}
		b.WriteString(xml[:start+1] + value)
		xml = xml[start+1+end:]
	}
}

// vmCreate makes a VM with nothing but a name; the rest is set afterwards.
func (s *session) vmCreate(ctx context.Context) error {
	name, _ := s.Params.Get("name-label")
	text, _ := s.Params.Get("name-description")
	var vm string
	if err := s.api.Call(ctx, "VM.create", &vm, emptyVM(name, text)); err != nil {
		return err
	}
	return s.answerUUIDs(ctx, "VM", vm)
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

// vmIsBIOSCustomized tells whether the VM shows a maker's BIOS strings.
func (s *session) vmIsBIOSCustomized(ctx context.Context) error {
	list, err := s.selected(ctx, "vm")
	if err != nil {
		return err
	}
	return s.each(list, func(r record) error {
		strs, _ := r.values["bios_strings"].(map[string]any)
		switch vendor, _ := strs["bios-vendor"].(string); vendor {
		case "":
			s.out.list("The BIOS strings of this VM are not set.")
		case "Xen":
			s.out.list("This VM is BIOS-generic.")
		default:
			s.out.list("This VM is BIOS-customized.")
		}
		return nil
	})
}

func (s *session) vmUninstall(ctx context.Context) error {
	list, err := s.selected(ctx, "vm", "force")
	if err != nil {
		return err
	}
	return s.uninstall(ctx, list)
}

func (s *session) snapshotUninstall(ctx context.Context) error {
	return s.uninstallOne(ctx, "snapshot-uuid|uuid")
}

func (s *session) templateUninstall(ctx context.Context) error {
	return s.uninstallOne(ctx, "template-uuid")
}

func (s *session) uninstallOne(ctx context.Context, params string) error {
	uuid, ok := s.Params.Get(params)
	if !ok {
		return missingParam(params)
	}
	r, err := s.byUUID(ctx, "VM", uuid)
	if err != nil {
		return err
	}
	return s.uninstall(ctx, []record{r})
}

// uninstall stops and removes VMs with the disks only they use, after asking
// unless --force is given.
func (s *session) uninstall(ctx context.Context, list []record) error {
	disks := map[string][]record{}
	var stake []string
	for _, r := range list {
		stake = append(stake, fmt.Sprintf("VM : %s (%s)", r.uuid(), r.text("name_label")))
		own, err := s.ownDisks(ctx, r)
		if err != nil {
			return err
		}
		for _, d := range own {
			stake = append(stake, fmt.Sprintf("VDI: %s (%s)", d.uuid(), d.text("name_label")))
		}
		disks[r.ref] = own
	}
	if !s.Params.True("force") && !s.confirm("The following items will be removed:\n"+strings.Join(stake, "\n")) {
		return errNotConfirmed
	}
	return s.each(list, func(r record) error { return s.remove(ctx, r, disks[r.ref]) })
}

func (s *session) remove(ctx context.Context, r record, disks []record) error {
	if state := r.text("power_state"); state != "Halted" && r.values["is_a_snapshot"] != true {
		if err := s.api.Call(ctx, "VM.hard_shutdown", nil, r.ref); err != nil {
			return err
		}
	}
	if err := s.api.Call(ctx, "VM.destroy", nil, r.ref); err != nil {
		return err
	}
	for _, d := range disks {
		if err := s.api.Call(ctx, "VDI.destroy", nil, d.ref); err != nil {
			return err
		}
	}
	return nil
}

// ownDisks are the disks no other VM has.
func (s *session) ownDisks(ctx context.Context, r record) ([]record, error) {
	var own []record
	refs, _ := r.values["VBDs"].([]any)
	for _, ref := range refs {
		vbd, err := s.target(ctx, "VBD", fmt.Sprint(ref))
		if err != nil {
			return nil, err
		}
		vdi, err := s.target(ctx, "VDI", vbd.text("VDI"))
		if err != nil {
			return nil, err
		}
		users, _ := vdi["VBDs"].([]any)
		if vbd.text("type") == "Disk" && vdi != nil && len(users) <= 1 {
			own = append(own, record{vbd.text("VDI"), vdi})
		}
	}
	return own, nil
}

// confirm shows what is at stake and reads one line.
func (s *session) confirm(stake string) bool {
	s.out.print(stake + "\nType 'yes' to continue\n")
	return s.saysYes()
}

func (s *session) saysYes() bool {
	var answer string
	_, err := fmt.Fscanln(s.in, &answer)
	return err == nil && strings.EqualFold(answer, "yes")
}
