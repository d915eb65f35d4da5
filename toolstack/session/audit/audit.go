// Package audit writes down who did what: a line for each call that changes
// something or was denied, with the user, his session and role, the message, the
// names of the objects it is about, how it ended and how long it took. Values
// never stand in it, for some of them are secrets.
//
// Lines go to the process's log and to a file of a bounded size beside the
// database, which GET /audit_log serves. Denials are the one thing that somebody
// without any right can cause, so only so many of one user or client address are
// written per minute, and the rest counted: nobody can wash other lines out.
//
// A Log may be used by many goroutines.
package audit

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/session"
	"cairn/toolstack/wire"
)

// Bounds of a line.
const (
	maxObjects = 10
	maxName    = 80
)

// How many denials of one user or address are written, and of all.
const (
	denialsPerMinute    = 60
	allDenialsPerMinute = 600
)

// Config is what a Log is made of.
type Config struct {
	DB *db.DB
	// Dir is where the file is kept; "" keeps none.
	Dir string
	// Who tells whose a session is.
	Who func(api.SessionRef) (session.Identity, bool)
	Log *slog.Logger     // nil discards
	Now func() time.Time // nil is the real time
}

// Log is the audit log.
type Log struct {
	cfg  Config
	file *file // nil without a directory
	logs []*slog.Logger

	mu               sync.Mutex
	minute           time.Time // of the counts
	denied           map[string]int
	written, omitted int
}

// New opens the log.
func New(c Config) (*Log, error) {
	if c.Now == nil {
		c.Now = time.Now
	}
	l := &Log{cfg: c, denied: map[string]int{}}
	if c.Log != nil {
		l.logs = append(l.logs, c.Log.With("component", "audit"))
	}
	if c.Dir != "" {
		f, err := openFile(c.Dir, maxFileBytes, keptFiles)
		if err != nil {
			return nil, err
		}
		l.file = f
		l.logs = append(l.logs, journal.New(f, "audit"))
	}
	return l, nil
}

// Close ends the log; nothing may be observed any more.
func (l *Log) Close() error {
	if l.file == nil {
		return nil
	}
	return l.file.Close()
}

// Observe writes a call down, for wire.Config.
func (l *Log) Observe(o wire.Observation) {
	denied := isDenied(o.Err)
	if !denied && !changes(o.Message) {
		return
	}
	who, known := l.cfg.Who(o.Session)
	if !known && !o.Message.NoSession {
		return // a call without a session is no one's, and anyone can send it
	}
	key := who.User
	if !known {
		who.User, key = claimed(o), "from "+host(o.Remote)
	}
	attrs := append(identity(who, o.Remote), slog.String("message", o.Message.Method))
	if o.Async {
		attrs = append(attrs, slog.Bool("async", true))
	}
	if names := l.objects(o); len(names) > 0 {
		attrs = append(attrs, slog.String("objects", strings.Join(names, " ")))
	}
	l.write(denied, key, append(attrs, slog.String("result", result(o.Err)), slog.Duration("took", o.Took)))
}

// claimed is who somebody without a session says he is.
func claimed(o wire.Observation) string {
	if len(o.Args) == 0 || o.Message.Params[0].Name != "uname" {
		return "" // the first value may be a secret
	}
	return clip(o.Args[0].Text)
}

// Stream writes down the use of a stream beside the messages, or its denial.
func (l *Log) Stream(ref api.SessionRef, action string, err error) {
	who, known := l.cfg.Who(ref)
	denied := isDenied(err)
	if !known || !denied && reads(action) {
		return
	}
	l.write(denied, who.User, append(identity(who, ""), slog.String("message", "http/"+action), slog.String("result", result(err))))
}

// reads reports whether an action changes nothing: its name says so, or all it takes is
// the least role. Those who draw graphs ask every few seconds.
func reads(action string) bool {
	if strings.HasPrefix(action, "get_") {
		return true
	}
	return slices.ContainsFunc(api.HTTPActions(), func(a api.HTTPAction) bool {
		return a.Name == action && a.Method == http.MethodGet && a.Role == "read-only"
	})
}

// Authorize wraps what decides on streams, so that its decisions are written
// down.
func (l *Log) Authorize(decide func(api.SessionRef, string) error) func(api.SessionRef, string) error {
	return func(ref api.SessionRef, action string) error {
		err := decide(ref, action)
		l.Stream(ref, action, err)
		return err
	}
}

func (l *Log) write(denied bool, key string, attrs []slog.Attr) {
	if !denied {
		l.emit(slog.LevelInfo, "call", attrs)
		return
	}
	written, omitted := l.count(key)
	if omitted > 0 {
		l.emit(slog.LevelWarn, "denied-omitted", []slog.Attr{slog.Int("count", omitted)})
	}
	if written {
		l.emit(slog.LevelWarn, "denied", attrs)
	}
}

func (l *Log) emit(level slog.Level, event string, attrs []slog.Attr) {
	for _, log := range l.logs {
		log.LogAttrs(context.Background(), level, event, attrs...)
	}
}

// count counts a denial and decides whether it is written. At the turn of a
// minute it answers how many were not.
func (l *Log) count(key string) (written bool, omitted int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if minute := l.cfg.Now().Truncate(time.Minute); !minute.Equal(l.minute) {
		omitted, l.omitted = l.omitted, 0
		l.minute, l.written, l.denied = minute, 0, map[string]int{}
	}
	if l.written >= allDenialsPerMinute || l.denied[key] >= denialsPerMinute {
		l.omitted++
		return false, omitted
	}
	l.denied[key]++
	l.written++
	return true, omitted
}

func identity(who session.Identity, remote string) []slog.Attr {
	attrs := []slog.Attr{slog.String("user", who.User), slog.String("role", who.Role), slog.String("session", who.Session)}
	if who.SID != "" {
		attrs = append(attrs, slog.String("sid", clip(who.SID)))
	}
	if remote != "" {
		attrs = append(attrs, slog.String("remote", remote))
	}
	return attrs
}

func host(remote string) string {
	if h, _, err := net.SplitHostPort(remote); err == nil {
		return h
	}
	return remote
}

// changes reports whether a message may change something. Whatever is not
// certain to be a question is taken to.
func changes(m *api.MessageInfo) bool {
	switch m.Op {
	case api.OpGetRecord, api.OpGetAll, api.OpGetAllRecords, api.OpGetAllWhere, api.OpGetAllRecordsWhere,
		api.OpGetByUUID, api.OpGetByName, api.OpGet:
		return false
	}
	return !strings.HasPrefix(m.Name(), "get_") && m.Class.Name != "event"
}

func isDenied(err error) bool {
	var known *api.Error
	if !errors.As(err, &known) {
		return false
	}
	switch known.Code {
	case api.CodeRBACPermissionDenied, api.CodeSessionAuthenticationFailed, api.CodeSessionAuthorizationFailed:
		return true
	}
	return false
}

// result is the error's code; its parameters may hold what a client sent.
func result(err error) string {
	var known *api.Error
	switch {
	case err == nil:
		return "ok"
	case errors.As(err, &known):
		return known.Code
	}
	return api.CodeInternalError
}

// objects names what a call is about: what its parameters refer to, or what a
// new object is to be called.
func (l *Log) objects(o wire.Observation) []string {
	var names []string
	add := func(class *api.ClassInfo, ref string) {
		if ref != "" && len(names) < maxObjects {
			names = append(names, l.name(o.Before, class, ref))
		}
	}
	for i := range o.Args {
		if i >= len(o.Message.Params) {
			break
		}
		v, t := &o.Args[i], o.Message.Params[i].Type
		switch {
		case t.Kind == api.KindRef:
			add(t.Class(), api.ParseRef(v.Text))
		case t.Kind == api.KindSet && t.Elem().Kind == api.KindRef:
			for n := range v.Items {
				add(t.Elem().Class(), api.ParseRef(v.Items[n].Text))
			}
		case t.Kind == api.KindRecord:
			if label, ok := v.Get("name_label"); ok {
				names = append(names, t.Class().Name+":"+clip(label.Text))
			}
		case o.Message.Params[i].Name == "key":
			names = append(names, "key:"+clip(v.Text))
		}
	}
	return names
}

// name is an object's name and uuid, from before the call if it is gone.
func (l *Log) name(before *db.Snapshot, class *api.ClassInfo, ref string) string {
	if !class.InDB {
		return class.Name
	}
	object := l.cfg.DB.Snapshot().Object(class, ref)
	if object == nil && before != nil {
		object = before.Object(class, ref)
	}
	if object == nil {
		return class.Name + ":" + clip(strings.TrimPrefix(ref, "OpaqueRef:"))
	}
	if class == api.ClassOf[api.Session]() { // a reference to one is a key to it
		return class.Name + ":" + object.Record().GetUUID()
	}
	name := clip(object.Record().GetName())
	if name != "" {
		name += "/"
	}
	return class.Name + ":" + name + object.Record().GetUUID()
}

func clip(s string) string {
	runes := []rune(s)
	if len(runes) > maxName {
		return string(runes[:maxName]) + "…"
	}
	return s
}
