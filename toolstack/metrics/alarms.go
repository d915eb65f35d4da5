package metrics

import (
	"context"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/metrics/perfmon"
)

// Alerts tells operators.
type Alerts interface {
	RaiseAt(ctx context.Context, name string, priority int64, cls api.Cls, uuid, body string) (api.MessageRef, error)
}

const (
	perfmonKey  = "perfmon" // of other_config
	perHost     = perfmon.SRThroughput + "per_host"
	utilisation = "physical_utilisation"
)

// subject is an object with rules about figures, its own or others'.
type subject struct {
	figures Owner
	cls     api.Cls
	uuid    string
	text    string
}

// watch is what is remembered of a subject's rules.
type watch struct {
	text   string
	rules  []perfmon.Rule
	states map[string]*perfmon.State // by the rule's text
}

type watchKey struct {
	cls  api.Cls
	uuid string
}

// alarms holds the last look's figures against the rules there are.
func (m *Manager) alarms(ctx context.Context, w *world, now time.Time) {
	before := m.watches
	m.watches = map[watchKey]*watch{}
	for _, s := range m.subjects(w) {
		key := watchKey{s.cls, s.uuid}
		k := m.watching(before[key], s, w)
		m.watches[key] = k
		figures := m.now(s.figures)
		for _, r := range k.rules {
			state := k.states[r.Text]
			value, is := state.Step(r, now, m.valueOf(r, s, figures))
			if is && m.raise(ctx, w, s, r, value) {
				state.Alarmed(now)
			}
		}
	}
}

// subjects are the host, its own system, what runs on it and where its disks are, of
// those that have rules.
func (m *Manager) subjects(w *world) (all []subject) {
	add := func(s subject, config map[string]string) {
		if s.text = config[perfmonKey]; s.text != "" {
			all = append(all, s)
		}
	}
	host := Owner{HostKind, w.host.UUID}
	add(subject{figures: host, cls: api.ClsHost, uuid: w.host.UUID}, w.host.OtherConfig)
	if control, err := db.Get(w.snap, w.host.ControlDomain); err == nil {
		add(subject{figures: host, cls: api.ClsVM, uuid: control.UUID}, control.OtherConfig)
	}
	for id := range m.guests {
		if g := w.guest(id); g != nil {
			add(subject{figures: Owner{VMKind, id}, cls: api.ClsVM, uuid: id}, g.row.OtherConfig)
		}
	}
	for _, sr := range w.srs {
		add(subject{figures: Owner{SRKind, sr.UUID}, cls: api.ClsSR, uuid: sr.UUID}, sr.OtherConfig)
	}
	slices.SortFunc(all, func(a, b subject) int { return strings.Compare(a.uuid, b.uuid) })
	return all
}

// watching keeps the states of rules that are still there. Rules that cannot be read are
// none, and are told of once.
func (m *Manager) watching(old *watch, s subject, w *world) *watch {
	if old != nil && old.text == s.text {
		return old
	}
	k := &watch{text: s.text, states: map[string]*perfmon.State{}}
	rules, err := perfmon.Parse(s.text)
	if err != nil {
		m.cfg.Log.Warn("perfmon-refused", "class", s.cls, "uuid", s.uuid, "err", err)
		return k
	}
	k.rules = rules
	for _, r := range rules {
		if old != nil && old.states[r.Text] != nil {
			k.states[r.Text] = old.states[r.Text]
			continue
		}
		state := &perfmon.State{}
		cls, uuid := s.about(r, w)
		state.Alarmed(lastAlarm(w.snap, cls, uuid, s.quoted(r)))
		k.states[r.Text] = state
	}
	return k
}

// lastAlarm is when there was such an alarm, perhaps before this process began.
func lastAlarm(r db.Reader, cls api.Cls, uuid, rule string) (last time.Time) {
	for _, x := range db.All[api.Message](r) {
		if x.Name == perfmon.Alarm && x.Cls == cls && x.ObjUUID == uuid && x.Timestamp.After(last) && strings.Contains(x.Body, rule) {
			last = x.Timestamp
		}
	}
	return last
}

// about is the object an alarm is of: throughput of a repository is told of the host.
func (s subject) about(r perfmon.Rule, w *world) (api.Cls, string) {
	if s.cls == api.ClsSR && r.Name == perHost {
		return api.ClsHost, w.host.UUID
	}
	return s.cls, s.uuid
}

// quoted is a rule as alarms quote it: that about throughput names the repository.
func (s subject) quoted(r perfmon.Rule) string {
	if s.cls == api.ClsSR && r.Name == perHost {
		return strings.Replace(r.Text, perHost, perfmon.SRThroughput+s.uuid[:min(len(s.uuid), shortID)], 1)
	}
	return r.Text
}

func (m *Manager) raise(ctx context.Context, w *world, s subject, r perfmon.Rule, value float64) bool {
	cls, uuid := s.about(r, w)
	quoted := r
	quoted.Text = s.quoted(r)
	ctx, cancel := context.WithTimeout(ctx, statsLimit)
	defer cancel()
	_, err := m.cfg.Alerts.RaiseAt(ctx, perfmon.Alarm, r.Priority, cls, uuid, quoted.Body(value))
	m.trouble("alerts", err)
	return err == nil
}

// valueOf makes a rule's value of figures. Some names stand for shares of a whole.
func (m *Manager) valueOf(r perfmon.Rule, s subject, figures []figure) float64 {
	if dir, ok := m.cfg.FileSystems[r.Name]; ok && s.figures.Kind == HostKind {
		return fullness(dir)
	}
	switch {
	case s.cls == api.ClsSR && r.Name == perHost:
		return valueNamed(figures, "io_throughput_total")
	case s.cls == api.ClsSR && r.Name == utilisation:
		return valueNamed(figures, utilisation) / valueNamed(figures, "size")
	case s.figures.Kind == HostKind && r.Name == perfmon.MemoryUsage:
		return 1 - valueNamed(figures, "memory_free_kib")/valueNamed(figures, "memory_total_kib")
	}
	var values []float64
	for _, f := range figures {
		if r.Match.MatchString(f.name) {
			values = append(values, f.value)
		}
	}
	return r.Value(values)
}

// fullness is the part of a file system that is in use, of what may be used.
func fullness(dir string) float64 {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Blocks == 0 {
		return unknown
	}
	used := float64(st.Blocks - st.Bfree)
	return used / (used + float64(st.Bavail))
}

// valueNamed is the value of the figure of a name, NaN where there is none.
func valueNamed(figures []figure, name string) float64 {
	for _, f := range figures {
		if f.name == name {
			return f.value
		}
	}
	return unknown
}
