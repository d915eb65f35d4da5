package xe

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"cairn/toolstack/client"
)

// vlanDestroy takes the uuid of a VLAN or of the interface it made.
func (s *session) vlanDestroy(ctx context.Context) error {
	uuid, _ := s.Params.Get("uuid")
	var vlan string
	err := s.api.Call(ctx, "VLAN.get_by_uuid", &vlan, uuid)
	if client.IsCode(err, "UUID_INVALID") {
		var pif record
		if pif, err = s.byUUID(ctx, "PIF", uuid); err == nil {
			vlan = pif.text("VLAN_master_of")
		}
	}
	if err != nil {
		return err
	}
	return s.api.Call(ctx, "VLAN.destroy", nil, vlan)
}

// hostdriverSelect picks a variant of a driver by name.
func (s *session) hostdriverSelect(ctx context.Context) error {
	uuid, _ := s.Params.Get("uuid")
	want, _ := s.Params.Get("variant-name")
	driver, err := s.byUUID(ctx, "Host_driver", uuid)
	if err != nil {
		return err
	}
	refs, _ := driver.values["variants"].([]any)
	for _, ref := range refs {
		v, err := s.target(ctx, "Driver_variant", fmt.Sprint(ref))
		if err != nil {
			return err
		}
		if v.text("name") == want {
			return s.api.Call(ctx, "Host_driver.select", nil, driver.ref, ref)
		}
	}
	return fmt.Errorf("variant %q: %w", want, errNoMatch)
}

// subjectAdd lets a user or group of the external authentication in.
func (s *session) subjectAdd(ctx context.Context) error {
	name, _ := s.Params.Get("subject-name")
	var id, subject string
	if err := s.api.Call(ctx, "auth.get_subject_identifier", &id, name); err != nil {
		return err
	}
	about := map[string]string{}
	if err := s.api.Call(ctx, "auth.get_subject_information_from_identifier", &about, id); err != nil {
		return err
	}
	rec := map[string]any{"subject_identifier": id, "other_config": about}
	if err := s.api.Call(ctx, "subject.create", &subject, rec); err != nil {
		return err
	}
	return s.answerUUIDs(ctx, "subject", subject)
}

// logoutAll ends the sessions of everybody the external authentication let in.
func (s *session) logoutAll(ctx context.Context) error {
	var ids []string
	if err := s.api.Call(ctx, "session.get_all_subject_identifiers", &ids); err != nil {
		return err
	}
	for _, id := range ids {
		if err := s.api.Call(ctx, "session.logout_subject_identifier", nil, id); err != nil {
			return err
		}
	}
	return nil
}

// eventWait waits until an object fits all the filters.
func (s *session) eventWait(ctx context.Context) error {
	name, _ := s.Params.Get("class")
	c := s.cat.byName[strings.ToLower(name)]
	if c == nil {
		c = s.cat.classOf(name)
	}
	if c == nil {
		return usage("there is no class %q", name)
	}
	tests, err := c.filters(s.Params.Without("class").Without(standard...))
	if err != nil {
		return err
	}
	token := ""
	for {
		var b batch
		if err := s.api.Call(ctx, "event.from", &b, []string{strings.ToLower(c.API)}, token, pollSeconds); err != nil {
			if ctx.Err() != nil {
				return errors.New("interrupted")
			}
			return err
		}
		token = b.Token
		s.store = newStore() // what references lead to may have changed as well
		for _, e := range b.Events {
			if e.Operation == "del" {
				continue
			}
			ok, err := s.passes(ctx, c, record{e.Ref, e.Snapshot}, tests)
			if ok || err != nil {
				return err
			}
		}
	}
}

// licenseStatus tells the edition of each host.
func (s *session) licenseStatus(ctx context.Context) error {
	hosts, err := s.records(ctx, "host")
	if err != nil {
		return err
	}
	for _, h := range hosts {
		params, _ := h.values["license_params"].(map[string]any)
		expiry, _ := params["expiry"].(string)
		if expiry == "" {
			expiry = "never"
		}
		s.out.table([]row{{"host", h.text("name_label")}, {"uuid", h.uuid()}, {"edition", h.text("edition")}, {"expires", expiry}})
	}
	return nil
}

// vdiStatus shows a disk and the VMs that have it.
func (s *session) vdiStatus(ctx context.Context) error {
	uuid, _ := s.Params.Get("uuid")
	vdi, err := s.byUUID(ctx, "VDI", uuid)
	if err != nil {
		return err
	}
	if err := s.printAs(ctx, "vdi", vdi, "", "uuid,name-label,sr-uuid,virtual-size,read-only,sharable,managed,missing"); err != nil {
		return err
	}
	refs, _ := vdi.values["VBDs"].([]any)
	for _, ref := range refs {
		v, err := s.target(ctx, "VBD", fmt.Sprint(ref))
		if err != nil {
			return err
		}
		if err := s.printAs(ctx, "vbd", record{fmt.Sprint(ref), v}, "", "uuid,vm-uuid,vm-name-label,userdevice,mode,currently-attached"); err != nil {
			return err
		}
	}
	return nil
}

// vmStatus shows what ties a VM to hosts: where it may run, and what keeps it
// from others.
func (s *session) vmStatus(ctx context.Context) error {
	uuid, _ := s.Params.Get("uuid")
	vm, err := s.byUUID(ctx, "VM", uuid)
	if err != nil {
		return err
	}
	if err := s.printAs(ctx, "vm", vm, "", "uuid,name-label,power-state,resident-on,affinity,ha-restart-priority"); err != nil {
		return err
	}
	hosts, err := s.records(ctx, "host")
	if err != nil {
		return err
	}
	for _, h := range hosts {
		verdict := "can run here"
		err := s.api.Call(ctx, "VM.assert_can_boot_here", nil, vm.ref, h.ref)
		var refused *client.Error
		if errors.As(err, &refused) {
			verdict = strings.SplitN(s.refusal(ctx, refused), "\n", 2)[0]
		} else if err != nil {
			return err
		}
		s.out.table([]row{{"host", h.text("name_label")}, {"uuid", h.uuid()}, {"verdict", verdict}})
	}
	return nil
}
