package vm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/url"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/client"
	"cairn/toolstack/db"
	"cairn/toolstack/wire/wiretest"
	"cairn/toolstack/xe"
)

// xeAPI is the session of an xe command on a rig.
type xeAPI struct{ *rig }

func (a xeAPI) Call(_ context.Context, method string, out any, args ...any) error {
	result, err := a.rig.Call(method, args...)
	var refused *api.Error
	if errors.As(err, &refused) {
		return &client.Error{Code: refused.Code, Params: refused.Params}
	}
	if err != nil || out == nil {
		return err
	}
	return json.Unmarshal(result, out)
}

var errNoTransfer = errors.New("nothing is transferred here")

func (xeAPI) Console(context.Context, string) (io.ReadWriteCloser, error) { return nil, errNoTransfer }
func (xeAPI) Get(context.Context, string, url.Values) (io.ReadCloser, error) {
	return nil, errNoTransfer
}
func (xeAPI) PutFile(context.Context, string, url.Values, string) error { return errNoTransfer }
func (a xeAPI) Session() string                                         { return a.rig.Server.Session }

// xe runs a command, which must succeed, and returns what it prints.
func (r *rig) xe(args ...string) string {
	r.T.Helper()
	out, err := r.tryXE(args...)
	if err != nil {
		r.T.Fatalf("xe %s: %v", strings.Join(args, " "), err)
	}
	return out
}

func (r *rig) tryXE(args ...string) (string, error) {
	var out, failed bytes.Buffer
	status := xe.Run(r.ctx, xe.Config{
		Args: args, Stdin: strings.NewReader(""), Stdout: &out, Stderr: &failed, Getenv: func(string) string { return "" },
		Connect: func(context.Context, xe.Settings, bool) (xe.API, func(), error) { return xeAPI{r}, func() {}, nil },
	})
	if status != 0 {
		return out.String(), errors.New(failed.String())
	}
	return strings.TrimSpace(out.String()), nil
}

func (r *rig) byUUID(uuid string) (string, *api.VM) {
	r.T.Helper()
	ref, err := db.ByUUID[api.VM](r.DB.Snapshot(), uuid)
	if err != nil {
		r.T.Fatal(err)
	}
	return string(ref), r.record(string(ref))
}

func TestXEInstallAndUninstall(t *testing.T) {
	r := newRig(t)
	two := wiretest.Get(r.Server, r.makeSR("/srv/two")).UUID
	uuid := r.xe("vm-install", "template=Debian Trixie 13", "new-name-label=web", "sr-uuid="+two)
	ref, v := r.byUUID(uuid)
	if v.NameLabel != "web" || v.IsATemplate || len(r.vdis(ref)) != 1 || wiretest.Get(r.Server, r.vdi(r.vdis(ref)[0]).SR).UUID != two {
		t.Errorf("installed %+v", v)
	}
	if got := r.xe("vm-list", "name-label=web", "--minimal"); got != uuid {
		t.Errorf("vm-list: %s", got)
	}
	r.xe("vm-start", "uuid="+uuid)
	r.xe("vm-uninstall", "uuid="+uuid, "--force")
	r.onlyDisks(0)
	if got := r.xe("vm-list", "name-label=web", "--minimal"); got != "" {
		t.Errorf("after uninstall: %s", got)
	}
}

func TestXECloneCopyDestroy(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	for _, command := range []string{"vm-clone", "vm-copy"} {
		made, v := r.byUUID(r.xe(command, "uuid="+r.uuid(ref), "new-name-label=made"))
		if v.NameLabel != "made" || r.read(r.vdis(made)[1], 0) != 11 {
			t.Errorf("%s: %+v", command, v)
		}
		r.xe("vm-destroy", "uuid="+v.UUID)
	}
	if _, err := r.tryXE("vm-clone", "uuid="+api.NewUUID(), "new-name-label=made"); err == nil {
		t.Error("a clone of nothing")
	}
}

func TestXESnapshots(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	uuid := r.uuid(ref)
	snap := r.xe("vm-snapshot", "uuid="+uuid, "new-name-label=s")
	if got := r.xe("snapshot-list", "snapshot-of="+uuid, "--minimal"); got != snap {
		t.Errorf("snapshot-list: %s, want %s", got, snap)
	}
	if got := r.xe("snapshot-disk-list", "uuid="+snap); strings.Count(got, "uuid ( RO)") < 2 {
		t.Errorf("snapshot-disk-list: %s", got)
	}
	r.write(r.vdis(ref)[0], 0, 99)
	r.xe("snapshot-revert", "snapshot-uuid="+snap)
	if got := r.read(r.vdis(ref)[0], 0); got != 10 {
		t.Errorf("reverted, the disk reads %d", got)
	}
	template, v := r.byUUID(r.xe("snapshot-clone", "uuid="+snap, "new-name-label=t"))
	if !v.IsATemplate || v.IsASnapshot || len(r.vdis(template)) != 2 {
		t.Errorf("snapshot-clone: %+v", v)
	}
	if got := r.xe("template-list", "name-label=t", "--minimal"); got != v.UUID {
		t.Errorf("template-list: %s", got)
	}
	r.xe("template-param-set", "uuid="+v.UUID, "name-description=mine")
	if got := r.xe("template-param-get", "uuid="+v.UUID, "param-name=name-description"); got != "mine" {
		t.Errorf("template-param-get: %s", got)
	}
	r.xe("template-uninstall", "template-uuid="+v.UUID, "--force")
	r.xe("snapshot-uninstall", "uuid="+snap, "--force")
	r.onlyDisks(2)
	r.xe("vm-start", "uuid="+uuid)
	if got, s := r.byUUID(r.xe("vm-checkpoint", "uuid="+uuid, "new-name-label=c")); s.SuspendVDI.IsNull() {
		t.Errorf("vm-checkpoint: %s %+v", got, s)
	}
}

func TestXESuspendAndResume(t *testing.T) {
	r := newRig(t)
	ref := r.install("x")
	uuid := r.uuid(ref)
	r.xe("vm-start", "uuid="+uuid)
	r.xe("vm-suspend", "uuid="+uuid)
	if got := r.xe("vm-param-get", "uuid="+uuid, "param-name=power-state"); got != "suspended" {
		t.Errorf("suspended: %s", got)
	}
	r.xe("vm-resume", "uuid="+uuid)
	r.state(ref, api.VMPowerStateRunning)
}
