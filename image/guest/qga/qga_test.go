package qga

import (
	"errors"
	"io"
	"strings"
	"testing"
)

// machine notes what it is told to do.
type machine struct{ did []string }

func (m *machine) OS() map[string]string     { return map[string]string{"id": "demo"} }
func (m *machine) HostName() string          { return "here" }
func (m *machine) Interfaces() []Interface   { return []Interface{{Name: "eth0"}} }
func (m *machine) Filesystems() []Filesystem { return nil }
func (m *machine) PowerOff(mode string)      { m.did = append(m.did, "off "+mode) }
func (m *machine) Freeze() (int, error)      { m.did = append(m.did, "freeze"); return 2, nil }
func (m *machine) Thaw() (int, error)        { m.did = append(m.did, "thaw"); return 2, nil }

// port is what was asked, and what was answered.
type port struct {
	io.Reader
	strings.Builder
}

func TestAnswers(t *testing.T) {
	for _, tt := range []struct{ ask, want, did string }{
		{`{"execute":"guest-ping"}`, `{"return":{}}`, ""},
		{`garb` + "\xff" + `{"execute":"guest-sync-delimited","arguments":{"id":7}}`, "\xff" + `{"return":7}`, ""},
		{`{"execute"`, `{"error":{"class":"GenericError","desc":"Invalid JSON syntax"}}`, ""},
		{`{"execute":"guest-exec"}`, `{"error":{"class":"CommandNotFound","desc":"The command guest-exec has not been found"}}`, ""},
		{`{"execute":"guest-get-osinfo"}`, `{"return":{"id":"demo"}}`, ""},
		{`{"execute":"guest-get-host-name"}`, `{"return":{"host-name":"here"}}`, ""},
		{`{"execute":"guest-network-get-interfaces"}`, `{"return":[{"name":"eth0"}]}`, ""},
		{`{"execute":"guest-get-fsinfo"}`, `{"return":null}`, ""},
		{`{"execute":"guest-fsfreeze-thaw"}`, `{"return":0}`, ""},
		{`{"execute":"guest-fsfreeze-freeze"}` + "\n" + `{"execute":"guest-fsfreeze-status"}` + "\n" + `{"execute":"guest-get-osinfo"}` +
			"\n" + `{"execute":"guest-shutdown"}` + "\n" + `{"execute":"guest-fsfreeze-thaw"}` + "\n" + `{"execute":"guest-fsfreeze-status"}`,
			`{"return":2}` + "\n" + `{"return":"frozen"}` + "\n" + `{"error":{"class":"CommandNotFound","desc":"Command guest-get-osinfo has been disabled"}}` +
				"\n" + `{"error":{"class":"CommandNotFound","desc":"Command guest-shutdown has been disabled"}}` +
				"\n" + `{"return":2}` + "\n" + `{"return":"thawed"}`, "freeze,thaw"},
		{`{"execute":"guest-shutdown","arguments":{"mode":"powerdown"}}`, "", "off powerdown"},
	} {
		m := &machine{}
		p := &port{Reader: strings.NewReader(tt.ask + "\n")}
		if err := New(m).Serve(p); !errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", tt.ask, err)
		}
		if got := strings.TrimSuffix(p.String(), "\n"); got != tt.want {
			t.Errorf("%s\n answers %s\n want    %s", tt.ask, got, tt.want)
		}
		if got := strings.Join(m.did, ","); got != tt.did {
			t.Errorf("%s did %q, want %q", tt.ask, got, tt.did)
		}
	}
}
