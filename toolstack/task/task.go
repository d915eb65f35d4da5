// Package task keeps the tasks that clients follow: one per asynchronous call,
// one for the length of each long synchronous call, and those that clients make
// for work of their own. Tasks are volatile records; this package is the only
// writer of the class.
//
// A task leaves the state pending once and for good, and its progress never goes
// back. Progress and finishing time are set in the transaction that ends it, so no
// one sees it ended but not complete. Clients forget to destroy their tasks, so
// Run does it for them after a while. A Manager may be used by many goroutines.
package task

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Config is what a Manager is made of. All but DB may be left out.
type Config struct {
	DB       *db.DB
	ThisHost func() api.HostRef
	// Who names the user of a session, whose the tasks are that it begins, and
	// says whether he may end the tasks of others. Nil lets everyone do so.
	Who func(api.SessionRef) (user string, others bool)
	Now func() time.Time
	Log *slog.Logger
}

// Manager begins, ends and cancels tasks.
type Manager struct {
	cfg Config

	wake chan struct{} // cap 1: there may be something to forget sooner

	mu      sync.Mutex
	running map[api.TaskRef]*Running
	owners  map[api.TaskRef]string
}

// New returns a manager.
func New(c Config) *Manager {
	if c.ThisHost == nil {
		c.ThisHost = func() api.HostRef { return "" }
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = journal.Discard()
	}
	if c.Who == nil {
		c.Who = func(api.SessionRef) (string, bool) { return "", true }
	}
	return &Manager{
		cfg: c, wake: make(chan struct{}, 1),
		running: map[api.TaskRef]*Running{}, owners: map[api.TaskRef]string{},
	}
}

// Running is the task of a call that is being served. It implements
// api.Progress.
type Running struct {
	m      *Manager
	ref    api.TaskRef
	async  bool
	ctx    context.Context
	cancel context.CancelCauseFunc
}

// Start begins a task for a message. One that is not async ends with its call
// and disappears.
func (m *Manager) Start(ctx context.Context, method string, session api.SessionRef, async bool) (*Running, error) {
	t := &Running{m: m, ref: api.NewRef[api.Task](), async: async}
	t.ctx, t.cancel = context.WithCancelCause(ctx)
	r := m.record(method, "")
	r.AllowedOperations = []api.TaskAllowedOperations{api.TaskAllowedOperationsCancel}
	err := m.cfg.DB.Update(ctx, func(tx *db.Tx) error {
		db.InsertAs(tx, t.ref, r)
		return nil
	})
	if err != nil {
		t.cancel(nil)
		return nil, err
	}
	m.mu.Lock()
	m.running[t.ref] = t
	m.mu.Unlock()
	m.own(t.ref, session)
	return t, nil
}

func (m *Manager) record(label, description string) *api.Task {
	r := api.NewTask()
	r.NameLabel, r.NameDescription = label, description
	r.Created = m.cfg.Now()
	r.Status = api.TaskStatusTypePending
	r.ResidentOn = m.cfg.ThisHost()
	r.Type = "<none/>"
	return r
}

// Ref implements api.Progress.
func (t *Running) Ref() api.TaskRef { return t.ref }

// Context is cancelled, with cause api.ErrCancelled, by task.cancel.
func (t *Running) Context() context.Context { return t.ctx }

// Set implements api.Progress.
func (t *Running) Set(fraction float64) {
	t.m.edit(t.ref, func(r *api.Task) error {
		advance(r, fraction)
		return nil
	})
}

// advance moves progress on; it does not go back.
func advance(r *api.Task, fraction float64) {
	if fraction > r.Progress { // not so for what is no number
		r.Progress = min(fraction, 1)
	}
}

// Finish ends the task with the result as XML text, or an error.
func (t *Running) Finish(result string, err error) {
	t.m.mu.Lock()
	delete(t.m.running, t.ref)
	t.m.mu.Unlock()
	cancelled := errors.Is(context.Cause(t.ctx), api.ErrCancelled)
	t.cancel(nil)
	if !t.async {
		t.m.remove(t.ref)
		return
	}
	defer t.m.poke()
	t.m.edit(t.ref, func(r *api.Task) error {
		if ended(r.Status) {
			return nil
		}
		status := api.TaskStatusTypeSuccess
		switch {
		case err != nil && cancelled:
			status = api.TaskStatusTypeCancelled
		case err != nil:
			status = api.TaskStatusTypeFailure
		}
		t.m.end(r, status)
		if r.Result = result; err != nil {
			r.Result, r.ErrorInfo = "", errorInfo(err)
		}
		return nil
	})
}

func errorInfo(err error) []string {
	var known *api.Error
	if errors.As(err, &known) {
		return append([]string{known.Code}, known.Params...)
	}
	return []string{api.CodeInternalError, err.Error()}
}

// end moves a task into a final state.
func (m *Manager) end(r *api.Task, status api.TaskStatusType) {
	r.Status, r.Progress, r.Finished = status, 1, m.cfg.Now()
	r.AllowedOperations, r.CurrentOperations = nil, nil
}

func ended(s api.TaskStatusType) bool {
	return s != api.TaskStatusTypePending && s != api.TaskStatusTypeCancelling
}

// edit changes a task's record.
func (m *Manager) edit(ref api.TaskRef, f func(r *api.Task) error) error {
	return m.update(func(tx *db.Tx) error {
		r, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		return f(r)
	})
}

// update writes to the database. It does not stop half way when a call is
// cancelled: the end of a task must be told.
func (m *Manager) update(f func(tx *db.Tx) error) error {
	err := m.cfg.DB.Update(context.Background(), f)
	var known *api.Error
	if err != nil && !errors.As(err, &known) && !errors.Is(err, db.ErrClosed) {
		m.cfg.Log.Error("task-update-failed", "err", err)
	}
	return err
}

// Register binds the messages of class task.
func (m *Manager) Register(r *api.Registry) {
	api.HandleTaskCreate(r, m.create)
	api.HandleTaskDestroy(r, m.destroy)
	api.HandleTaskCancel(r, m.cancel)
	api.HandleTaskSetStatus(r, m.setStatus)
	api.HandleTaskSetProgress(r, func(c *api.Call, self api.TaskRef, value float64) error {
		return m.change(c, self, func(t *api.Task) { advance(t, value) })
	})
	api.HandleTaskSetResult(r, func(c *api.Call, self api.TaskRef, value string) error {
		return m.change(c, self, func(t *api.Task) { t.Result = value })
	})
	api.HandleTaskSetErrorInfo(r, func(c *api.Call, self api.TaskRef, value []string) error {
		return m.change(c, self, func(t *api.Task) { t.ErrorInfo = value })
	})
	m.registerOtherConfig(r)
}

// change is a client's edit of a task it may touch.
func (m *Manager) change(c *api.Call, self api.TaskRef, f func(*api.Task)) error {
	if err := m.Permit(c.Session, self, c.Message.Method); err != nil {
		return err
	}
	return m.edit(self, func(t *api.Task) error { f(t); return nil })
}

// create makes a task for work a client does itself.
func (m *Manager) create(c *api.Call, label, description string) (api.TaskRef, error) {
	ref, r := api.NewRef[api.Task](), m.record(label, description)
	r.AllowedOperations = []api.TaskAllowedOperations{api.TaskAllowedOperationsCancel, api.TaskAllowedOperationsDestroy}
	err := m.cfg.DB.Update(c, func(tx *db.Tx) error {
		db.InsertAs(tx, ref, r)
		return nil
	})
	if err != nil {
		return "", err
	}
	m.own(ref, c.Session)
	m.poke()
	return ref, nil
}

// destroy forgets a task; one that still runs is cancelled.
func (m *Manager) destroy(c *api.Call, self api.TaskRef) error {
	if err := m.Permit(c.Session, self, c.Message.Method); err != nil {
		return err
	}
	m.stop(self)
	return m.remove(self)
}

// stop cancels the call a task belongs to and reports whether there is one.
func (m *Manager) stop(ref api.TaskRef) bool {
	m.mu.Lock()
	t := m.running[ref]
	m.mu.Unlock()
	if t == nil {
		return false
	}
	t.cancel(api.ErrCancelled)
	return true
}

// cancel asks a task to end. It is up to the behaviour when it does; the task
// of a client ends at once.
func (m *Manager) cancel(c *api.Call, ref api.TaskRef) error {
	if err := m.Permit(c.Session, ref, c.Message.Method); err != nil {
		return err
	}
	defer m.poke()
	err := m.edit(ref, func(t *api.Task) error {
		if !ended(t.Status) {
			t.Status, t.AllowedOperations = api.TaskStatusTypeCancelling, nil
		}
		return nil
	})
	if err != nil || m.stop(ref) {
		return err
	}
	return m.edit(ref, func(t *api.Task) error {
		if t.Status == api.TaskStatusTypeCancelling {
			m.end(t, api.TaskStatusTypeCancelled)
			t.ErrorInfo = []string{api.CodeTaskCancelled, ref.String()}
		}
		return nil
	})
}

// setStatus moves a client's task; a final state is final, and one that is being
// cancelled does not become pending again.
func (m *Manager) setStatus(c *api.Call, self api.TaskRef, value api.TaskStatusType) error {
	defer m.poke()
	return m.change(c, self, func(t *api.Task) {
		switch {
		case ended(t.Status):
		case ended(value):
			m.end(t, value)
		case value == api.TaskStatusTypeCancelling:
			t.Status = value
		}
	})
}

func (m *Manager) registerOtherConfig(r *api.Registry) {
	api.HandleTaskSetOtherConfig(r, func(c *api.Call, self api.TaskRef, value map[string]string) error {
		return m.change(c, self, func(t *api.Task) { t.OtherConfig = value })
	})
	api.HandleTaskAddToOtherConfig(r, m.addToOtherConfig)
	api.HandleTaskRemoveFromOtherConfig(r, func(c *api.Call, self api.TaskRef, key string) error {
		return m.change(c, self, func(t *api.Task) { delete(t.OtherConfig, key) })
	})
}

func (m *Manager) addToOtherConfig(c *api.Call, self api.TaskRef, key, value string) error {
	var duplicate error
	err := m.change(c, self, func(t *api.Task) {
		if _, ok := t.OtherConfig[key]; ok {
			duplicate = api.ErrMapDuplicateKey("task", "other_config", self.String(), key)
			return
		}
		if t.OtherConfig == nil {
			t.OtherConfig = map[string]string{}
		}
		t.OtherConfig[key] = value
	})
	if err != nil {
		return err
	}
	return duplicate
}
