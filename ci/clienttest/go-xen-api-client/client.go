package main

import (
	"fmt"

	"github.com/amfranz/go-xmlrpc-client"
	xenapi "github.com/terra-farm/go-xen-api-client"
)

// client is a logged-in client.
type client struct {
	*xenapi.Client
	session xenapi.SessionRef
}

func run(url, user, password string) error {
	api, err := xenapi.NewClient(url, nil)
	if err != nil {
		return err
	}
	if _, err := api.Session.LoginWithPassword(user, password+"x", "2.23", "test"); err == nil {
		return fmt.Errorf("a wrong password is right")
	}
	session, err := api.Session.LoginWithPassword(user, password, "2.23", "test")
	if err != nil {
		return fmt.Errorf("log in: %w", err)
	}
	c := &client{api, session}
	for _, step := range []func() error{c.list, c.makeVM} {
		if err := step(); err != nil {
			return err
		}
	}
	if err := api.Session.Logout(session); err != nil {
		return fmt.Errorf("log out: %w", err)
	}
	if _, err := api.VM.GetAll(session); err == nil {
		return fmt.Errorf("the session outlives its logout")
	}
	fmt.Println("logged out")
	return nil
}

// list reads the records of the classes a client shows first. Those of VMs are
// read as the client got them: it refuses operations it is too old to know.
func (c *client) list() error {
	pools, err := c.Pool.GetAllRecords(c.session)
	if err != nil {
		return fmt.Errorf("pools: %w", err)
	}
	if len(pools) != 1 {
		return fmt.Errorf("%d pools", len(pools))
	}
	hosts, err := c.host()
	if err != nil {
		return err
	}
	srs, err := c.SR.GetAllRecords(c.session)
	if err != nil {
		return fmt.Errorf("storage repositories: %w", err)
	}
	networks, err := c.Network.GetAllRecords(c.session)
	if err != nil {
		return fmt.Errorf("networks: %w", err)
	}
	vms, err := c.APICall("VM.get_all_records", string(c.session))
	if err != nil {
		return fmt.Errorf("VMs: %w", err)
	}
	refs, err := c.VM.GetAll(c.session)
	if err != nil || len(refs) != len(vms.Value.(xmlrpc.Struct)) {
		return fmt.Errorf("%d references of VMs, %w", len(refs), err)
	}
	fmt.Printf("listed pools=%d hosts=%d srs=%d networks=%d vms=%d\n", len(pools), hosts, len(srs), len(networks), len(refs))
	return nil
}

func (c *client) host() (int, error) {
	refs, err := c.Host.GetAll(c.session)
	if err != nil {
		return 0, fmt.Errorf("hosts: %w", err)
	}
	for _, ref := range refs {
		name, err := c.Host.GetNameLabel(c.session, ref)
		if err != nil || name == "" {
			return 0, fmt.Errorf("name of host %s: %q, %w", ref, name, err)
		}
		if _, err := c.Host.GetSoftwareVersion(c.session, ref); err != nil {
			return 0, fmt.Errorf("version of host %s: %w", ref, err)
		}
	}
	return len(refs), nil
}

func (c *client) makeVM() error {
	token, err := c.now()
	if err != nil {
		return err
	}
	const memory = 256 << 20
	vm, err := c.VM.Create(c.session, xenapi.VMRecord{
		NameLabel: "made by go-xen-api-client", NameDescription: "<&>", UserVersion: 1, PowerState: xenapi.VMPowerStateHalted,
		MemoryStaticMin: memory, MemoryDynamicMin: memory, MemoryDynamicMax: memory, MemoryStaticMax: memory,
		VCPUsMax: 2, VCPUsAtStartup: 1, HVMBootPolicy: "BIOS order", Platform: map[string]string{"acpi": "true"},
		ActionsAfterShutdown: xenapi.OnNormalExitDestroy, ActionsAfterReboot: xenapi.OnNormalExitRestart,
		ActionsAfterCrash: xenapi.OnCrashBehaviourRestart, OtherConfig: map[string]string{"k": "v"},
	})
	if err != nil {
		return fmt.Errorf("create a VM: %w", err)
	}
	if err := c.VM.SetNameLabel(c.session, vm, "renamed"); err != nil {
		return fmt.Errorf("rename the VM: %w", err)
	}
	name, err := c.VM.GetNameLabel(c.session, vm)
	if err != nil || name != "renamed" {
		return fmt.Errorf("the VM is named %q, %w", name, err)
	}
	if token, err = c.await(token, "add", string(vm), "renamed"); err != nil {
		return err
	}
	if err := c.VM.Destroy(c.session, vm); err != nil {
		return fmt.Errorf("destroy the VM: %w", err)
	}
	_, err = c.await(token, "del", string(vm), "")
	if _, gone := c.VM.GetUUID(c.session, vm); gone == nil {
		return fmt.Errorf("the VM outlives its destruction")
	} else if known, ok := gone.(*xenapi.Error); !ok || known.Code() != xenapi.ERR_HANDLE_INVALID {
		return fmt.Errorf("a destroyed VM answers %w", gone)
	}
	return err
}

// now is the token of the present.
func (c *client) now() (string, error) {
	_, token, err := c.from("", 0)
	return token, err
}

// from asks for events of VMs. The client's own event.from expects the answer of
// a time before tokens, so the call is made by name.
func (c *client) from(token string, timeout float64) ([]xmlrpc.Struct, string, error) {
	answer, err := c.APICall("event.from", string(c.session), []interface{}{"vm"}, token, timeout)
	if err != nil {
		return nil, "", fmt.Errorf("events: %w", err)
	}
	batch, ok := answer.Value.(xmlrpc.Struct)
	if !ok {
		return nil, "", fmt.Errorf("events: %v", answer.Value)
	}
	var events []xmlrpc.Struct
	for _, e := range batch["events"].([]interface{}) {
		events = append(events, e.(xmlrpc.Struct))
	}
	return events, batch["token"].(string), nil
}

// await follows events until the wanted one.
func (c *client) await(token, operation, ref, name string) (string, error) {
	const patience = 20 // batches
	for range patience {
		events, next, err := c.from(token, 5)
		if err != nil {
			return "", err
		}
		token = next
		for _, e := range events {
			if e["operation"] != operation || e["ref"] != ref {
				continue
			}
			if name != "" && e["snapshot"].(xmlrpc.Struct)["name_label"] != name {
				return "", fmt.Errorf("the event's snapshot is of another time: %v", e["snapshot"])
			}
			fmt.Printf("event %s\n", operation)
			return token, nil
		}
	}
	return "", fmt.Errorf("no event %s of %s", operation, ref)
}
