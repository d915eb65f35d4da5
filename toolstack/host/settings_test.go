package host_test

import (
	"errors"
	"slices"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/host"
	"cairn/toolstack/host/hosttest"
)

// refusal is a call that must be answered with an error and change nothing.
type refusal struct {
	method string
	args   []any // after the host
	want   *api.Error
}

func (s *stack) unchanged(refusals ...refusal) {
	s.T.Helper()
	for _, r := range refusals {
		before := s.row()
		s.Refused(r.want, r.method, append([]any{s.m.Ref()}, r.args...)...)
		if s.row() != before {
			s.T.Errorf("%s(%v) was refused and has written", r.method, r.args)
		}
	}
}

func TestSettings(t *testing.T) {
	s := newStack(t)
	const iqn = "iqn.2026-01.example.cairn:host1"
	for _, tt := range []struct {
		method string
		args   []any
		holds  func(*api.Host) bool
	}{
		{"host.set_iscsi_iqn", []any{iqn}, func(h *api.Host) bool { return h.ISCSIIQN == iqn && h.OtherConfig["iscsi_iqn"] == iqn }},
		{"host.set_multipathing", []any{true}, func(h *api.Host) bool { return h.Multipathing && h.OtherConfig["multipathing"] == "true" }},
		{"host.set_power_on_mode", []any{"wake-on-lan", map[string]string{}}, func(h *api.Host) bool { return h.PowerOnMode == "wake-on-lan" }},
		{"host.set_timezone", []any{"Asia/Tokyo"}, func(h *api.Host) bool { return h.Timezone == "Asia/Tokyo" }},
		{"host.set_ntp_custom_servers", []any{[]string{"a.example"}}, func(h *api.Host) bool { return slices.Equal(h.NTPCustomServers, []string{"a.example"}) }},
		{"host.apply_edition", []any{host.Edition, false}, func(h *api.Host) bool { return h.Edition == host.Edition }},
		{"host.set_ssl_legacy", []any{false}, func(h *api.Host) bool { return !h.SSLLegacy }},
		{"host.set_https_only", []any{true}, func(h *api.Host) bool { return h.HTTPSOnly }},
		{"host.disable_ssh", nil, func(h *api.Host) bool { return !h.SSHEnabled }},
	} {
		s.Must(nil, tt.method, append([]any{s.m.Ref()}, tt.args...)...)
		if err := s.m.Sync(t.Context()); err != nil { // which must not undo it
			t.Fatal(err)
		}
		if !tt.holds(s.row()) {
			t.Errorf("%s(%v) has no effect: %+v", tt.method, tt.args, s.row())
		}
		s.Covers(tt.method)
	}
}

func TestSettingsRefused(t *testing.T) {
	s := newStack(t)
	s.unchanged([]refusal{
		{"host.set_iscsi_iqn", []any{"iqn"}, api.ErrInvalidValue("iscsi_iqn", "iqn")},
		{"host.set_iscsi_iqn", []any{"iqn.2026-13.example"}, api.ErrInvalidValue("iscsi_iqn", "iqn.2026-13.example")},
		{"host.set_power_on_mode", []any{"script", map[string]string{}}, api.ErrInvalidValue("power_on_mode", "script")},
		{"host.set_power_on_mode", []any{"iLO", map[string]string{"power_on_ip": "x"}}, api.ErrInvalidValue("power_on_config:power_on_user", "")},
		{"host.set_timezone", []any{"Mars/Olympus"}, api.ErrInvalidValue("timezone", "Mars/Olympus")},
		{"host.apply_edition", []any{"premium"}, api.ErrInvalidEdition("premium")},
		{"host.set_ssl_legacy", []any{true}, api.ErrValueNotSupported("ssl_legacy", "true", "TLS older than 1.2 is not spoken")},
		{"host.set_https_only", []any{false}, api.ErrValueNotSupported("https_only", "false", "the API is served over TLS only")},
		{"host.set_ntp_mode", []any{"Custom"}, api.ErrInvalidNTPConfig("no custom servers are set")},
		{"host.set_ntp_mode", []any{"Factory"}, api.ErrValueNotSupported("ntp_mode", "Factory", "there are no time servers of the maker")},
		{"host.set_ntp_mode", []any{"Disabled"}, api.ErrValueNotSupported("ntp_mode", "Disabled", "the servers of the DHCP lease are used")},
		{"host.destroy", nil, api.ErrHostIsLive(s.m.Ref().String())},
	}...)
	for _, name := range []string{"", "-", "a b", "a..b"} {
		before := s.row()
		_, err := s.Call("host.set_hostname_live", s.m.Ref(), name)
		if e := asError(err); e.Code != api.CodeHostNameInvalid || len(e.Params) != 1 || s.row() != before {
			t.Errorf("host name %q: %v", name, err)
		}
	}
	_, err := s.Call("host.set_ntp_custom_servers", s.m.Ref(), []string{"bad server"})
	if e := asError(err); e.Code != api.CodeInvalidNTPConfig {
		t.Errorf("servers: %v", err)
	}
}

func asError(err error) *api.Error {
	var e *api.Error
	if !errors.As(err, &e) {
		return &api.Error{}
	}
	return e
}

// TestHostname: the name is in force on the host, not only in the row.
func TestHostname(t *testing.T) {
	s := newStack(t)
	s.Must(nil, "host.set_hostname_live", s.m.Ref(), "renamed")
	s.hostd.Set(func(h *hosttest.Hostd) {
		if h.Document.Hostname != "renamed" {
			t.Errorf("the document says %q", h.Document.Hostname)
		}
	})
	if h := s.row(); h.Hostname != "renamed" || s.m.Hostname() != "renamed" {
		t.Errorf("the row says %q", h.Hostname)
	}
	s.Covers("host.set_hostname_live")
}

func TestTimeServers(t *testing.T) {
	s := newStack(t, func(h *hosttest.Hostd) { h.Synchronized = true })
	document := func() (servers []string) {
		s.hostd.Set(func(h *hosttest.Hostd) { servers = h.Document.NTP })
		return servers
	}
	if mode := s.row().NTPMode; mode != api.HostNTPModeDHCP {
		t.Errorf("mode is %s", mode)
	}
	s.Must(nil, "host.set_ntp_custom_servers", s.m.Ref(), []string{"a.example"})
	if d := document(); len(d) != 0 {
		t.Errorf("servers for later are in force: %v", d)
	}
	s.Must(nil, "host.set_ntp_mode", s.m.Ref(), "Custom")
	if d := document(); !slices.Equal(d, []string{"a.example"}) || s.row().NTPMode != api.HostNTPModeCustom {
		t.Errorf("servers %v, mode %s", d, s.row().NTPMode)
	}
	s.Must(nil, "host.set_ntp_custom_servers", s.m.Ref(), []string{"b.example", "192.0.2.9"})
	if d := document(); !slices.Equal(d, []string{"b.example", "192.0.2.9"}) {
		t.Errorf("servers %v", d)
	}
	s.unchanged(refusal{"host.set_ntp_custom_servers", []any{[]string{}}, api.ErrInvalidNTPConfig("no custom servers are given")})
	s.Must(nil, "host.set_ntp_mode", s.m.Ref(), "DHCP")
	if d := document(); len(d) != 0 || s.row().NTPMode != api.HostNTPModeDHCP || len(s.row().NTPCustomServers) != 2 {
		t.Errorf("servers %v, row %s %v", d, s.row().NTPMode, s.row().NTPCustomServers)
	}
	var synchronized bool
	if s.Must(&synchronized, "host.get_ntp_synchronized", s.m.Ref()); !synchronized {
		t.Error("the clock follows a source and is not synchronized")
	}
	s.Covers("host.set_ntp_mode", "host.set_ntp_custom_servers", "host.get_ntp_synchronized")
}

func TestPowerOnPassword(t *testing.T) {
	s := newStack(t)
	cfg := map[string]string{"power_on_ip": "192.0.2.9", "power_on_user": "admin", "power_on_password": "hidden"}
	s.Must(nil, "host.set_power_on_mode", s.m.Ref(), "DRAC", cfg)
	h := s.row()
	secret, err := db.ByUUID[api.Secret](s.DB.Snapshot(), h.PowerOnConfig["power_on_password_secret"])
	if err != nil || h.PowerOnConfig["power_on_password"] != "" {
		t.Fatalf("config %v: %v", h.PowerOnConfig, err)
	}
	if v, err := db.Get(s.DB.Snapshot(), secret); err != nil || v.Value != "hidden" {
		t.Errorf("secret: %v", err)
	}
	s.Must(nil, "host.set_power_on_mode", s.m.Ref(), "", map[string]string{})
	if _, err := db.Get(s.DB.Snapshot(), secret); err == nil {
		t.Error("the secret outlives its use")
	}
}
