package metrics

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// get asks for a document and returns status, type and body.
func (b *bench) get(path string, query url.Values, accept string) (int, http.Header, string) {
	b.Helper()
	if query == nil {
		query = url.Values{}
	}
	if !query.Has("session_id") {
		query.Set("session_id", b.Session)
	}
	r, err := http.NewRequest("GET", b.HTTP.URL+path+"?"+query.Encode(), nil)
	must(b, err)
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(r)
	must(b, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(b, err)
	return resp.StatusCode, resp.Header, string(body)
}

// busy is a bench with a VM that has run for a quarter of a minute.
func busy(t *testing.T) (b *bench, ref api.VMRef, uuid string) {
	b = newBench(t)
	ref, uuid, tap := b.vm()
	for i := range 4 {
		b.guests.stats = []hypervisor.Stats{use(uuid, tap, 5*i)}
		b.tick()
	}
	return b, ref, uuid
}

// legend asks for updates as JSON and returns whose columns there are.
func (b *bench) legend(query url.Values) (owners []string) {
	b.Helper()
	query.Set("json", "true")
	status, _, body := b.get("/rrd_updates", query, "")
	var u struct{ Meta struct{ Legend []string } }
	if err := json.Unmarshal([]byte(body), &u); err != nil || status != 200 {
		b.Fatalf("%d %s: %v", status, body, err)
	}
	for _, l := range u.Meta.Legend {
		parts := strings.Split(l, ":")
		if parts[0] != "AVERAGE" && query.Get("cf") != "" || len(parts) != 4 {
			b.Errorf("column %s", l)
		}
		if !slices.Contains(owners, parts[1]+":"+parts[2]) {
			owners = append(owners, parts[1]+":"+parts[2])
		}
	}
	return owners
}

func TestUpdates(t *testing.T) {
	b, _, uuid := busy(t)
	_, other, tap := b.vm()
	b.guests.stats = append(b.guests.stats, use(other, tap, 1))
	b.tick()
	sr, err := db.Get(b.DB.Snapshot(), b.sr)
	must(t, err)
	host, vm, vm2, disks := "host:"+b.host, "vm:"+uuid, "vm:"+other, "sr:"+sr.UUID
	for _, tt := range []struct {
		query string
		want  []string
	}{
		{"", []string{vm, vm2}},
		{"host=true", []string{host, vm, vm2}},
		{"host=false&cf=AVERAGE", []string{vm, vm2}},
		{"vm_uuid=" + uuid, []string{vm}},
		{"uuid=" + uuid, []string{vm}},
		{"host=true&vm_uuid=none", []string{host}},
		{"host=true&sr_uuid=all&vm_uuid=all", []string{host, disks, vm, vm2}},
		{"vm_uuid=none&sr_uuid=" + sr.UUID, []string{disks}},
		{"vm_uuid=" + api.NewUUID(), nil},
	} {
		query, err := url.ParseQuery(tt.query)
		must(t, err)
		query.Set("start", fmt.Sprint(begin.Unix()))
		got := b.legend(query)
		slices.Sort(tt.want)
		if slices.Sort(got); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.query, got, tt.want)
		}
	}
}

// TestUpdateValues: the newest row first, one for each five seconds since start.
func TestUpdateValues(t *testing.T) {
	b, _, uuid := busy(t)
	query := url.Values{"start": {fmt.Sprint(begin.Unix())}, "cf": {"AVERAGE"}, "interval": {"5"}, "vm_uuid": {uuid}}
	status, header, body := b.get("/rrd_updates", query, "")
	var u struct {
		Legend []string `xml:"meta>legend>entry"`
		Rows   []struct {
			At     int64    `xml:"t"`
			Values []string `xml:"v"`
		} `xml:"data>row"`
	}
	must(t, xml.Unmarshal([]byte(body), &u))
	at := slices.Index(u.Legend, "AVERAGE:vm:"+uuid+":cpu1")
	if status != 200 || header.Get("Content-Type") != "text/xml" || header.Get("Access-Control-Allow-Origin") != "*" || at < 0 {
		t.Fatalf("%d %v %s", status, header, body)
	}
	if len(u.Rows) != 4 || u.Rows[0].At != begin.Unix()+20 || u.Rows[0].Values[at] != "0.25" || u.Rows[3].Values[at] != "NaN" {
		t.Errorf("%+v", u.Rows)
	}
}

func TestForms(t *testing.T) {
	b, _, uuid := busy(t)
	for _, tt := range []struct{ path, query, accept, want string }{
		{"/rrd_updates", "start=0", "", "text/xml"}, {"/rrd_updates", "start=0", "*/*", "application/json"},
		{"/rrd_updates", "start=0", "application/json", "application/json"}, {"/rrd_updates", "start=0&json=false", "application/json", "text/xml"},
		{"/rrd_updates", "start=-60", "text/html,application/xml;q=0.9,*/*;q=0.8", "text/xml"}, {"/rrd_updates", "start=0&json", "", "application/json"},
		{"/vm_rrd", "uuid=" + uuid, "", "text/xml"}, {"/vm_rrd", "json=true&uuid=" + uuid, "", "application/json"},
		{"/host_rrd", "", "", "text/xml"}, {"/host_rrd", "json=true", "", "application/json"},
	} {
		query, err := url.ParseQuery(tt.query)
		must(t, err)
		status, header, body := b.get(tt.path, query, tt.accept)
		if status != 200 || header.Get("Content-Type") != tt.want {
			t.Errorf("%s %s %s: %d %v", tt.path, tt.query, tt.accept, status, header)
		}
		if is := json.Valid([]byte(body)); is != (tt.want == "application/json") {
			t.Errorf("%s %s: %.80s", tt.path, tt.query, body)
		}
	}
}

// TestDocuments: whole databases, of VMs that rest too.
func TestDocuments(t *testing.T) {
	b, ref, uuid := busy(t)
	sr, err := db.Get(b.DB.Snapshot(), b.sr)
	must(t, err)
	read := func(path, id, source string) {
		t.Helper()
		status, _, body := b.get(path, url.Values{"uuid": {id}}, "")
		if status != 200 || !strings.Contains(body, "<name>"+source+"</name>") || !strings.HasSuffix(body, "</rrd>") {
			t.Errorf("%s: %d %.300s", path, status, body)
		}
	}
	read("/vm_rrd", uuid, "vbd_xvda_read")
	read("/host_rrd", "", "cpu_avg")
	read("/sr_rrd", sr.UUID, "size")
	b.guests.stats = nil
	b.update(func(tx *db.Tx) {
		vm, err := db.Edit(tx, ref)
		must(t, err)
		vm.PowerState, vm.ResidentOn = api.VMPowerStateHalted, ""
	})
	b.tick()
	read("/vm_rrd", uuid, "vbd_xvda_read")
}

func TestRefusedDocuments(t *testing.T) {
	b, ref, uuid := busy(t)
	_, never, _ := b.vm()
	for _, tt := range []struct {
		path, query string
		want        int
	}{
		{"/rrd_updates", "", 400}, {"/rrd_updates", "start=yesterday", 400}, {"/rrd_updates", "start=0&session_id=OpaqueRef:x", 401},
		{"/vm_rrd", "", 404}, {"/vm_rrd", "uuid=" + api.NewUUID(), 404}, {"/vm_rrd", "uuid=" + never, 404}, {"/vm_rrd", "uuid=../../etc/passwd", 404},
		{"/sr_rrd", "uuid=x", 404}, {"/vm_rrd", "uuid=" + uuid + "&session_id=OpaqueRef:x", 401}, {"/metrics", "session_id=OpaqueRef:x", 401},
	} {
		query, err := url.ParseQuery(tt.query)
		must(t, err)
		if status, _, body := b.get(tt.path, query, ""); status != tt.want {
			t.Errorf("%s %s: %d %s, want %d", tt.path, tt.query, status, body, tt.want)
		}
	}
	b.update(func(tx *db.Tx) {
		other := api.NewHost()
		other.UUID, other.Address = api.NewUUID(), "192.0.2.7"
		vm, err := db.Edit(tx, ref)
		must(t, err)
		vm.ResidentOn = db.Insert(tx, other)
	})
	status, header, _ := b.get("/vm_rrd", url.Values{"uuid": {uuid}}, "")
	if status != 302 || !strings.HasPrefix(header.Get("Location"), "https://192.0.2.7/vm_rrd?") {
		t.Errorf("of a VM elsewhere: %d %v", status, header)
	}
}

// TestUnreadableQueries: what cannot be read is refused in words of our own, by every
// document.
func TestUnreadableQueries(t *testing.T) {
	b, _, uuid := busy(t)
	for _, path := range []string{"/rrd_updates", "/vm_rrd", "/host_rrd", "/sr_rrd", "/metrics"} {
		for query, want := range map[string]string{
			"cf=FOO": `cf is "FOO"; there are AVERAGE, MIN and MAX`, "start=yesterday": `start is "yesterday", which is no number of seconds`,
			"start=99999999999999999999": `start is "99999999999999999999", which is no number of seconds`, "interval=5s": `interval is "5s", which is no number of seconds`,
		} {
			values, err := url.ParseQuery(query)
			must(t, err)
			values.Set("uuid", uuid)
			if !values.Has("start") {
				values.Set("start", "0")
			}
			if status, _, body := b.get(path, values, ""); status != 400 || body != "bad request: "+want+"\n" {
				t.Errorf("%s %s: %d %.100q", path, query, status, body)
			}
		}
	}
	if status, _, body := b.get("/rrd_updates", nil, ""); status != 400 || body != "bad request: start is missing\n" {
		t.Errorf("without start: %d %q", status, body)
	}
	for _, fine := range []string{"cf=average", "cf=", "interval=-1", "interval=9223372036854775807", "start=-9223372036854775808"} {
		values, err := url.ParseQuery(fine)
		must(t, err)
		if !values.Has("start") {
			values.Set("start", "0")
		}
		if status, _, body := b.get("/rrd_updates", values, ""); status != 200 {
			t.Errorf("%s: %d %q", fine, status, body)
		}
	}
}

func TestDataSources(t *testing.T) {
	b, ref, uuid := busy(t)
	type source struct {
		Name     string `json:"name_label"`
		Enabled  bool
		Standard bool
		Units    string
		Max      float64
		Value    float64
		About    string `json:"name_description"`
	}
	find := func(method, ref, name string) (source, int) {
		t.Helper()
		var all []source
		b.Must(&all, method, ref)
		for _, s := range all {
			if s.Name == name {
				return s, len(all)
			}
		}
		return source{}, len(all)
	}
	vm := ref.String()
	if s, n := find("VM.get_data_sources", vm, "cpu1"); n < 20 || s != (source{"cpu1", true, true, "(fraction)", 1, 0.25, "Use of virtual CPU 1"}) {
		t.Errorf("%d sources, cpu1 is %+v", n, s)
	}
	var value float64
	b.Must(&value, "VM.query_data_source", vm, "vbd_xvda_iops_total")
	if s, _ := find("VM.get_data_sources", vm, "vbd_xvda_iops_total"); s.Enabled || s.Standard || value != 12 {
		t.Errorf("%+v, %v", s, value)
	}
	b.Must(nil, "VM.record_data_source", vm, "vbd_xvda_iops_total")
	b.Must(nil, "VM.forget_data_source_archives", vm, "cpu0")
	b.guests.stats[0] = use(uuid, b.guests.stats[0].NICs[0].Tap, 20)
	b.tick()
	b.want(Owner{VMKind, uuid}, map[string]float64{"vbd_xvda_iops_total": 12, "cpu0": unknown, "cpu1": 0.25})
	if s, _ := find("VM.get_data_sources", vm, "cpu0"); s.Enabled || s.Value != 1 {
		t.Errorf("after forget: %+v", s)
	}
	b.m.SaveAll()
	b.restart(b.DB) // what was chosen stays chosen
	b.tick()
	b.want(Owner{VMKind, uuid}, map[string]float64{"cpu0": unknown})
	must(t, b.m.look(Owner{VMKind, uuid}, func(s *series) {
		if !s.chosen["vbd_xvda_iops_total"] || s.chosen["cpu0"] {
			t.Errorf("chosen: %v", s.chosen)
		}
	}))
	b.Covers("VM.get_data_sources", "VM.query_data_source", "VM.record_data_source", "VM.forget_data_source_archives")
}

func TestDataSourcesOfHostAndSR(t *testing.T) {
	b, _, _ := busy(t)
	sr, err := db.Get(b.DB.Snapshot(), b.sr)
	must(t, err)
	for class, of := range map[string]struct{ ref, uuid, optional, standard string }{
		"host": {b.Host.String(), b.host, "pif_eth0_rx_errors", "loadavg"}, "SR": {b.sr.String(), sr.UUID, "", "physical_utilisation"},
	} {
		o := Owner{Kind(strings.ToLower(class)), of.uuid}
		var all []map[string]any
		b.Must(&all, class+".get_data_sources", of.ref)
		if !slices.ContainsFunc(all, func(s map[string]any) bool { return s["name_label"] == of.standard && s["enabled"] == true }) {
			t.Errorf("%s: %v", class, all)
		}
		var value float64
		b.Must(&value, class+".query_data_source", of.ref, of.standard)
		b.want(o, map[string]float64{of.standard: value})
		b.Must(nil, class+".forget_data_source_archives", of.ref, of.standard)
		b.want(o, map[string]float64{of.standard: unknown})
		b.Must(nil, class+".record_data_source", of.ref, of.standard)
		b.tick()
		b.want(o, map[string]float64{of.standard: value})
		if of.optional != "" {
			b.Must(nil, class+".record_data_source", of.ref, of.optional)
			b.tick()
			b.want(o, map[string]float64{of.optional: 0})
		}
		b.Covers(class+".get_data_sources", class+".query_data_source", class+".record_data_source", class+".forget_data_source_archives")
	}
}

func TestRefusedDataSources(t *testing.T) {
	b, ref, _ := busy(t)
	halted, _, _ := b.vm()
	b.update(func(tx *db.Tx) {
		vm, err := db.Edit(tx, halted)
		must(t, err)
		vm.PowerState = api.VMPowerStateHalted
	})
	for _, tt := range []struct {
		method, ref, name, want string
	}{
		{"VM.query_data_source", ref.String(), "cpu7", api.CodeInvalidValue},
		{"VM.record_data_source", ref.String(), "", api.CodeInvalidValue},
		{"VM.forget_data_source_archives", "OpaqueRef:x", "cpu0", api.CodeHandleInvalid},
		{"VM.query_data_source", halted.String(), "cpu0", api.CodeVMBadPowerState},
		{"host.query_data_source", "OpaqueRef:x", "cpu0", api.CodeHandleInvalid},
		{"SR.record_data_source", b.sr.String(), "cpu0", api.CodeInvalidValue},
	} {
		_, err := b.Call(tt.method, tt.ref, tt.name)
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s %s: %v, want %s", tt.method, tt.name, err, tt.want)
		}
	}
}
