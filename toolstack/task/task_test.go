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
	s.Covers("task.destroy", "task.get_record")
}

func TestSubtasks(t *testing.T) {
	s, b := server(t)
	var parent string
	s.Must(&parent, "Async.VM.pause", "OpaqueRef:vm")
	<-b.began
	part, err := s.Wire.Tasks.StartUnder(t.Context(), api.TaskRef(parent), "a part")
	if err != nil {
		t.Fatal(err)
	}
	var subtasks []string
	var of string
	s.Must(&subtasks, "task.get_subtasks", parent)
	s.Must(&of, "task.get_subtask_of", part.Ref().String())
	if !slices.Equal(subtasks, []string{part.Ref().String()}) || of != parent {
		t.Errorf("subtasks %v, of %s", subtasks, of)
	}
	part.Finish("", nil)
	s.Must(&subtasks, "task.get_subtasks", parent)
	if len(subtasks) != 0 {
		t.Errorf("subtasks %v after the part has ended", subtasks)
	}
	b.end <- nil
	s.Covers("task.get_subtasks", "task.get_subtask_of")
}

func TestProgressAndStatusOnlyGoOn(t *testing.T) {
	s, _ := server(t)
	var ref string
	s.Must(&ref, "task.create", "label", "description")
	expect := func(progress float64, status api.TaskStatusType) {
		t.Helper()
		r, err := db.Get(s.DB.Snapshot(), api.TaskRef(ref))
		if err != nil || r.Progress != progress || r.Status != status {
			t.Errorf("%v: progress %v, %s; want %v, %s", err, r.Progress, r.Status, progress, status)
		}
	}
	for _, step := range []struct {
		set, is float64
	}{{0.5, 0.5}, {0.25, 0.5}, {-1, 0.5}, {0.75, 0.75}, {7, 1}} {
		s.Must(nil, "task.set_progress", ref, step.set)
		expect(step.is, "pending")
	}
	s.Must(nil, "task.set_status", ref, "cancelling")
	s.Must(nil, "task.set_status", ref, "pending")
	expect(1, "cancelling")
	s.Must(nil, "task.set_error_info", ref, []string{"SOME_ERROR", "x"})
	s.Must(nil, "task.set_status", ref, "failure")
	s.Must(nil, "task.set_status", ref, "success")
	s.Must(nil, "task.cancel", ref)
	expect(1, "failure")
	s.Must(nil, "task.set_other_config", ref, map[string]string{"a": "1", "b": "2"})
	s.Must(nil, "task.remove_from_other_config", ref, "a")
	s.Must(nil, "task.remove_from_other_config", ref, "absent")
	r, err := db.Get(s.DB.Snapshot(), api.TaskRef(ref))
	if err != nil || len(r.OtherConfig) != 1 || r.OtherConfig["b"] != "2" || !slices.Equal(r.ErrorInfo, []string{"SOME_ERROR", "x"}) {
		t.Errorf("%v: other_config %v, error_info %v", err, r.OtherConfig, r.ErrorInfo)
	}
	s.Covers("task.set_progress", "task.set_status", "task.set_error_info", "task.set_other_config", "task.remove_from_other_config")
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
	s.Covers("task.create", "task.set_result", "task.add_to_other_config", "task.cancel")
}
