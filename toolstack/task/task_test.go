package task_test

import (
	"errors"
	"slices"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire/wiretest"
)

// behaviour is VM.pause for the test: it says that it began, and ends as told.
type behaviour struct {
	began chan *api.Call
	end   chan error
}

func server(t *testing.T) (*wiretest.Server, *behaviour) {
	b := &behaviour{make(chan *api.Call, 1), make(chan error)}
	s := wiretest.New(t, func(r *api.Registry, _ *db.DB) {
		api.HandleVMPause(r, func(c *api.Call, _ api.VMRef) error {
			b.began <- c
			select {
			case err := <-b.end:
				return err
			case <-c.Done():
				return c.Err()
			}
		})
		api.HandleVMClone(r, func(c *api.Call, _ api.VMRef, _ string) (api.VMRef, error) {
			b.began <- c
			return "OpaqueRef:clone", <-b.end
		})
	})
	return s, b
}

// wait returns the task's record once its status is no longer pending.
func wait(t *testing.T, s *wiretest.Server, ref string, until ...api.TaskStatusType) *api.Task {
	t.Helper()
	w := s.DB.Watch()
	defer w.Close()
	timeout := time.After(10 * time.Second)
	for {
		r, err := db.Get(s.DB.Snapshot(), api.TaskRef(ref))
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(until, r.Status) {
			return r
		}
		select {
		case <-w.C():
		case <-timeout:
			t.Fatalf("task stays %s", r.Status)
		}
	}
}

func TestAsyncSuccess(t *testing.T) {
	s, b := server(t)
	var ref string
	s.Must(&ref, "Async.VM.clone", "OpaqueRef:vm", "name")
	c := <-b.began
	if !c.Async || c.Task.Ref().String() != ref {
		t.Errorf("the call's task is %s, the client's %s", c.Task.Ref(), ref)
	}
	c.Task.Set(0.25)
	var record struct {
		Name     string   `json:"name_label"`
		Progress float64  `json:"progress"`
		Status   string   `json:"status"`
		Allowed  []string `json:"allowed_operations"`
	}
	s.Must(&record, "task.get_record", ref)
	if record.Name != "Async.VM.clone" || record.Progress != 0.25 || record.Status != "pending" || !slices.Equal(record.Allowed, []string{"cancel"}) {
		t.Errorf("while running: %+v", record)
	}
	b.end <- nil
	r := wait(t, s, ref, api.TaskStatusTypeSuccess)
	if r.Result != "<value>OpaqueRef:clone</value>" || r.Progress != 1 || r.Finished.IsZero() || r.ResidentOn != s.Host {
		t.Errorf("ended as %s", api.AppendRecord(nil, api.JSON, r))
	}
	s.Must(nil, "task.destroy", ref)
	if _, err := s.Call("task.get_status", ref); err == nil {
		t.Error("a destroyed task is still there")
	}
}

func TestAsyncFailure(t *testing.T) {
	s, b := server(t)
	var ref string
	s.Must(&ref, "Async.VM.pause", "OpaqueRef:vm")
	<-b.began
	b.end <- api.ErrVMBadPowerState("OpaqueRef:vm", "running", "halted")
	r := wait(t, s, ref, api.TaskStatusTypeFailure)
	if !slices.Equal(r.ErrorInfo, []string{"VM_BAD_POWER_STATE", "OpaqueRef:vm", "running", "halted"}) || r.Result != "" {
		t.Errorf("ended as %s", api.AppendRecord(nil, api.JSON, r))
	}
}

func TestCancel(t *testing.T) {
	s, b := server(t)
	var ref string
	s.Must(&ref, "Async.VM.pause", "OpaqueRef:vm")
	<-b.began
	s.Must(nil, "task.cancel", ref)
	r := wait(t, s, ref, api.TaskStatusTypeCancelled)
	if !slices.Equal(r.ErrorInfo, []string{"TASK_CANCELLED", ref}) {
		t.Errorf("ended as %s", api.AppendRecord(nil, api.JSON, r))
	}
	s.Must(nil, "task.set_status", ref, "success")
	wait(t, s, ref, api.TaskStatusTypeCancelled)
}

func TestSynchronousCallHasATaskWhileItRuns(t *testing.T) {
	s, b := server(t)
	done := make(chan error)
	go func() {
		_, err := s.Call("VM.pause", "OpaqueRef:vm")
		done <- err
	}()
	c := <-b.began
	if _, err := db.Get(s.DB.Snapshot(), c.Task.Ref()); err != nil || c.Async {
		t.Errorf("task of a synchronous call: %v", err)
	}
	b.end <- nil
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := s.DB.Snapshot().Count(api.ClassOf[api.Task]()); n != 0 {
		t.Errorf("%d tasks left", n)
	}
}

func TestClientsOwnTask(t *testing.T) {
	s, _ := server(t)
	var ref string
	s.Must(&ref, "task.create", "import", "of a disk")
	s.Must(nil, "task.set_progress", ref, 0.5)
	s.Must(nil, "task.add_to_other_config", ref, "k", "v")
	var known *api.Error
	if _, err := s.Call("task.add_to_other_config", ref, "k", "w"); !errors.As(err, &known) || known.Code != "MAP_DUPLICATE_KEY" {
		t.Error(err)
	}
	s.Must(nil, "task.set_result", ref, "<value>x</value>")
	s.Must(nil, "task.set_status", ref, "success")
	r := wait(t, s, ref, api.TaskStatusTypeSuccess)
	if r.NameLabel != "import" || r.Progress != 1 || r.Result != "<value>x</value>" || r.OtherConfig["k"] != "v" {
		t.Errorf("record is %s", api.AppendRecord(nil, api.JSON, r))
	}
	var cancelled string
	s.Must(&cancelled, "task.create", "export", "")
	s.Must(nil, "task.cancel", cancelled)
	wait(t, s, cancelled, api.TaskStatusTypeCancelled)
}
