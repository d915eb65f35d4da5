package metrics

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/metrics/rrd"
	"cairn/toolstack/wire"
)

// Handle adds the documents clients read. They are not transfers and have no task: those
// who draw graphs ask every few seconds.
func (m *Manager) Handle(s *wire.Server) {
	s.Handle("GET", "/rrd_updates", wire.Auth, answer(m.updates))
	s.Handle("GET", "/vm_rrd", wire.Auth, answer(m.vmDocument))
	s.Handle("GET", "/host_rrd", wire.Auth, answer(m.hostDocument))
	s.Handle("GET", "/sr_rrd", wire.Auth, answer(m.srDocument))
	s.Handle("GET", "/metrics", wire.Auth, answer(m.exposition))
}

// text writes an answer in one of the forms there are.
type text struct {
	xml, json func(io.Writer) error
	plain     func(io.Writer) error
}

// answerLimit bounds how long a client may take to read an answer.
const answerLimit = time.Minute

// errBadRequest is wrapped by what a client has to ask otherwise.
var errBadRequest = errors.New("bad request")

func answer(find func(*wire.Request, rrd.Query) (text, error)) wire.HandlerFunc {
	return func(w http.ResponseWriter, r *wire.Request) {
		var t text
		q, err := query(r.URL.Query())
		if err == nil {
			t, err = find(r, q)
		}
		var elsewhere *wire.Elsewhere
		switch {
		case errors.As(err, &elsewhere):
			r.Redirect(w, elsewhere.Host)
			return
		case errors.Is(err, errBadRequest):
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		case err != nil:
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		header, write := w.Header(), t.plain
		header.Set("Access-Control-Allow-Origin", "*")
		header.Set("Access-Control-Allow-Headers", "X-Requested-With")
		switch {
		case write != nil:
			header.Set("Content-Type", expositionType)
		case wantsJSON(r.Request):
			header.Set("Content-Type", "application/json")
			write = t.json
		default:
			header.Set("Content-Type", "text/xml")
			write = t.xml
		}
		c := http.NewResponseController(w)
		_ = c.SetWriteDeadline(time.Now().Add(answerLimit)) // all connections here have one
		if write(w) == nil {
			_ = c.SetWriteDeadline(time.Time{})
		}
	}
}

// wantsJSON: who says json means it, whatever follows; else what is accepted counts.
func wantsJSON(r *http.Request) bool {
	if values, said := r.URL.Query()["json"]; said {
		return values[0] != "false"
	}
	accept := r.Header.Get("Accept")
	return strings.Contains(accept, "application/json") || strings.Contains(accept, "*/*") && !strings.Contains(accept, "xml")
}

// updates answers /rrd_updates: rows of the host, of VMs and of repositories side by
// side. As those who ask expect, VMs are all of them unless one is named, and the host
// and repositories are those asked for.
func (m *Manager) updates(r *wire.Request, q rrd.Query) (text, error) {
	values := r.URL.Query()
	if values.Get("start") == "" {
		return text{}, fmt.Errorf("%w: start is missing", errBadRequest)
	}
	vm, sr := values.Get("vm_uuid"), values.Get("sr_uuid")
	if !values.Has("vm_uuid") {
		if vm = values.Get("uuid"); vm == "" {
			vm = every
		}
	}
	u := m.join(q, func(o Owner) bool {
		switch o.Kind {
		case HostKind:
			return values.Get("host") == "true"
		case VMKind:
			return vm == every || vm == o.UUID
		default:
			return sr == every || sr == o.UUID
		}
	})
	return text{xml: u.WriteXML, json: u.WriteJSON}, nil
}

// every names all VMs or repositories.
const every = "all"

// query reads which rows are asked for. Every document refuses what cannot be read, also
// those that are always whole.
func query(values url.Values) (q rrd.Query, err error) {
	start, err := seconds(values, "start")
	if err != nil {
		return q, err
	}
	if start < 0 { // before now
		start += time.Now().Unix()
	}
	interval, err := seconds(values, "interval")
	if err != nil {
		return q, err
	}
	q = rrd.Query{Start: time.Unix(start, 0), Interval: time.Duration(min(max(0, interval), maxInterval)) * time.Second}
	switch f := rrd.Function(strings.ToUpper(values.Get("cf"))); f {
	case "", rrd.Average, rrd.Min, rrd.Max:
		q.Function = f
	default:
		return q, fmt.Errorf("%w: cf is %.40q; there are %s, %s and %s", errBadRequest, values.Get("cf"), rrd.Average, rrd.Min, rrd.Max)
	}
	return q, nil
}

// maxInterval is more than the steps of any archive, and fits a Duration.
const maxInterval = 1 << 31

// seconds is a number of seconds, 0 where none is said.
func seconds(values url.Values, key string) (int64, error) {
	text := values.Get(key)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%w: %s is %.40q, which is no number of seconds", errBadRequest, key, text)
	}
	return n, nil
}

// join answers a query of those in memory that are wanted.
func (m *Manager) join(q rrd.Query, wanted func(Owner) bool) *rrd.Updates {
	owners := m.owners()
	m.mu.Lock()
	defer m.mu.Unlock()
	var members []rrd.Member
	for _, o := range owners {
		if s := m.series[o]; s != nil && wanted(o) {
			members = append(members, rrd.Member{Owner: o.String(), Database: s.db})
		}
	}
	return rrd.Join(members, q)
}

func (m *Manager) vmDocument(r *wire.Request, _ rrd.Query) (text, error) {
	uuid := r.URL.Query().Get("uuid")
	snap := m.cfg.DB.Snapshot()
	ref, err := db.ByUUID[api.VM](snap, uuid)
	if err != nil {
		return text{}, err
	}
	vm, err := db.Get(snap, ref)
	if err != nil {
		return text{}, err
	}
	if vm.IsControlDomain {
		return text{}, errGone
	}
	if !vm.ResidentOn.IsNull() && vm.ResidentOn != m.cfg.ThisHost() {
		return text{}, &wire.Elsewhere{Host: vm.ResidentOn}
	}
	return m.document(Owner{VMKind, uuid})
}

func (m *Manager) hostDocument(*wire.Request, rrd.Query) (text, error) {
	host, err := db.Get(m.cfg.DB.Snapshot(), m.cfg.ThisHost())
	if err != nil {
		return text{}, err
	}
	return m.document(Owner{HostKind, host.UUID})
}

func (m *Manager) srDocument(r *wire.Request, _ rrd.Query) (text, error) {
	uuid := r.URL.Query().Get("uuid")
	if _, err := db.ByUUID[api.SR](m.cfg.DB.Snapshot(), uuid); err != nil {
		return text{}, err
	}
	return m.document(Owner{SRKind, uuid})
}

// document is all that is known of an owner.
func (m *Manager) document(o Owner) (text, error) {
	var d *rrd.Database
	if err := m.look(o, func(s *series) { d = s.db.Clone() }); err != nil {
		return text{}, err
	}
	return text{xml: d.WriteXML, json: d.WriteJSON}, nil
}
