// Package alert keeps messages: what the pool has to tell its operators, raised
// by the toolstack or created by clients, until somebody destroys them.
//
// They are records of the database, so they outlive a restart and reach whoever
// listens to events. There are at most maxMessages of them and maxBytes of text:
// the oldest give way. A Manager may be used by many goroutines.
package alert

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire"
)

// Bounds of what is kept. A pool that raises more has other troubles, and the
// database is not a log.
const (
	maxMessages = 10_000
	maxBytes    = 16 << 20
)

// Manager serves class message.
type Manager struct {
	db     *db.DB
	now    func() time.Time
	notify func(*api.Message)
}

// New returns a manager.
func New(d *db.DB) *Manager { return &Manager{d, time.Now, func(*api.Message) {}} }

// Notify has a function called with each message there is from now on. It must not
// block. Call it before any other method.
func (m *Manager) Notify(f func(*api.Message)) { m.notify = f }

// Register binds the messages of class message.
func (m *Manager) Register(r *api.Registry) {
	api.HandleMessageCreate(r, m.create)
	api.HandleMessageDestroy(r, func(c *api.Call, self api.MessageRef) error {
		return m.destroy(c, []api.MessageRef{self})
	})
	api.HandleMessageDestroyMany(r, m.destroy)
	api.HandleMessageDestroyAll(r, m.destroyAll)
	api.HandleMessageGetAll(r, func(*api.Call) ([]api.MessageRef, error) {
		refs := []api.MessageRef{}
		for ref := range db.All[api.Message](m.db.Snapshot()) {
			refs = append(refs, ref)
		}
		return refs, nil
	})
	api.HandleMessageGetAllRecords(r, func(*api.Call) (records, error) {
		return m.find(func(*api.Message) bool { return true }), nil
	})
	api.HandleMessageGetAllRecordsWhere(r, m.where)
	api.HandleMessageGetByUUID(r, func(_ *api.Call, uuid string) (api.MessageRef, error) {
		return db.ByUUID[api.Message](m.db.Snapshot(), uuid)
	})
	api.HandleMessageGetRecord(r, func(_ *api.Call, self api.MessageRef) (*api.Message, error) {
		return db.Get(m.db.Snapshot(), self)
	})
	api.HandleMessageGetSince(r, func(_ *api.Call, since time.Time) (records, error) {
		return m.find(func(x *api.Message) bool { return !x.Timestamp.Before(since) }), nil
	})
	api.HandleMessageGet(r, func(_ *api.Call, cls api.Cls, uuid string, since time.Time) (records, error) {
		return m.find(func(x *api.Message) bool {
			return x.Cls == cls && x.ObjUUID == uuid && !x.Timestamp.Before(since)
		}), nil
	})
}

type records = map[api.MessageRef]*api.Message

// find returns the messages of a kind.
func (m *Manager) find(is func(*api.Message) bool) records {
	found := records{}
	for ref, r := range db.All[api.Message](m.db.Snapshot()) {
		if is(r) {
			found[ref] = r
		}
	}
	return found
}

// where selects messages by an expression over their fields.
func (m *Manager) where(_ *api.Call, expr string) (records, error) {
	class := api.ClassOf[api.Message]()
	selected, err := wire.Select(class, expr)
	if err != nil {
		return nil, api.ErrInvalidValue("expr", err.Error())
	}
	found := records{}
	m.db.Snapshot().Objects(class, func(o *db.Object) bool {
		if selected(o) {
			found[api.MessageRef(o.Ref())] = o.Record().(*api.Message)
		}
		return true
	})
	return found, nil
}

// IsPriority reports whether a message may matter so much: 1 is the highest, 5 the least.
func IsPriority(p int64) bool { return 1 <= p && p <= 5 }

// create serves message.create: the object the message is about must exist.
func (m *Manager) create(c *api.Call, name string, priority int64, cls api.Cls, uuid, body string) (api.MessageRef, error) {
	if strings.ContainsFunc(name, unicode.IsControl) {
		return "", api.ErrInvalidValue("name", name)
	}
	if !IsPriority(priority) {
		return "", api.ErrInvalidValue("priority", strconv.FormatInt(priority, 10))
	}
	class := api.FindClass(string(cls))
	if class == nil || m.db.Snapshot().RefByUUID(class, uuid) == "" {
		return "", api.ErrUUIDInvalid(string(cls), uuid)
	}
	return m.insert(c, &api.Message{Name: name, Priority: priority, Cls: cls, ObjUUID: uuid, Body: body})
}

// Raise tells of something about an object, by the name of a known alert.
func (m *Manager) Raise(ctx context.Context, name string, cls api.Cls, uuid, body string) (api.MessageRef, error) {
	priority, ok := api.AlertPriority(name)
	if !ok {
		panic("alert: no alert is called " + name)
	}
	return m.RaiseAt(ctx, name, priority, cls, uuid, body)
}

// RaiseAt is Raise where somebody has said how much it matters.
func (m *Manager) RaiseAt(ctx context.Context, name string, priority int64, cls api.Cls, uuid, body string) (api.MessageRef, error) {
	return m.insert(ctx, &api.Message{Name: name, Priority: priority, Cls: cls, ObjUUID: uuid, Body: body})
}

func (m *Manager) insert(ctx context.Context, r *api.Message) (api.MessageRef, error) {
	ref := api.NewRef[api.Message]()
	r.UUID, r.Timestamp = api.NewUUID(), m.now().UTC()
	if size(r) > maxBytes {
		return "", api.ErrInvalidValue("body", "too long")
	}
	err := m.db.Update(ctx, func(tx *db.Tx) error {
		makeRoom(tx, size(r))
		db.InsertAs(tx, ref, r)
		return nil
	})
	if err == nil {
		m.notify(r)
	}
	return ref, err
}

func size(r *api.Message) int { return len(r.Name) + len(r.ObjUUID) + len(r.Body) }

// makeRoom destroys the oldest messages until there is room for one more.
func makeRoom(tx *db.Tx, bytes int) {
	type old struct {
		ref  api.MessageRef
		at   time.Time
		size int
	}
	var all []old
	for ref, r := range db.All[api.Message](tx) {
		all = append(all, old{ref, r.Timestamp, size(r)})
		bytes += size(r)
	}
	if len(all) < maxMessages && bytes <= maxBytes {
		return
	}
	slices.SortFunc(all, func(a, b old) int {
		return cmp.Or(a.at.Compare(b.at), cmp.Compare(a.ref, b.ref))
	})
	for len(all) >= maxMessages || len(all) > 0 && bytes > maxBytes {
		db.Delete(tx, all[0].ref) // it was there a moment ago
		bytes -= all[0].size
		all = all[1:]
	}
}

// destroy forgets messages, all or, where one does not exist, none.
func (m *Manager) destroy(c *api.Call, refs []api.MessageRef) error {
	return m.db.Update(c, func(tx *db.Tx) error {
		for _, ref := range refs {
			if err := db.Delete(tx, ref); err != nil {
				return err
			}
		}
		return nil
	})
}

// destroyAll forgets the messages for which every filter holds: name, cls,
// obj_uuid and priority are compared, before and after are times.
func (m *Manager) destroyAll(c *api.Call, filters map[string]string) error {
	for key, value := range filters {
		if err := validFilter(key, value); err != nil {
			return err
		}
	}
	return m.db.Update(c, func(tx *db.Tx) error {
		var gone []api.MessageRef
		for ref, r := range db.All[api.Message](tx) {
			if matches(r, filters) {
				gone = append(gone, ref)
			}
		}
		for _, ref := range gone {
			if err := db.Delete(tx, ref); err != nil {
				return err
			}
		}
		return nil
	})
}

func validFilter(key, value string) error {
	switch key {
	case "name", "cls", "obj_uuid", "priority":
		return nil
	case "before", "after":
		if _, err := time.Parse(api.TimeLayout, value); err == nil {
			return nil
		}
	}
	return api.ErrInvalidValue("filters:"+key, value)
}

func matches(r *api.Message, filters map[string]string) bool {
	for key, value := range filters {
		at, _ := time.Parse(api.TimeLayout, value) // of the two keys that are times
		holds := false
		switch key {
		case "name":
			holds = r.Name == value
		case "cls":
			holds = string(r.Cls) == value
		case "obj_uuid":
			holds = r.ObjUUID == value
		case "priority":
			holds = strconv.FormatInt(r.Priority, 10) == value
		case "before":
			holds = r.Timestamp.Before(at)
		case "after":
			holds = r.Timestamp.After(at)
		}
		if !holds {
			return false
		}
	}
	return true
}
