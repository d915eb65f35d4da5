package config

import "testing"

func TestChoose(t *testing.T) {
	const good1, good2, bad = "version: 1\nhostname: one\n", "version: 1\nhostname: two\n", "version: 1\nhostname: _\n"
	for _, c := range []struct {
		name     string
		in       []Candidate
		source   Source
		hostname string
		store    bool
		refused  []Source
	}{
		{name: "nothing", source: SourceDefault, hostname: "cairn"},
		{name: "state wins", in: []Candidate{{SourceState, []byte(good1)}, {SourceMedia, []byte(good2)}}, source: SourceState, hostname: "one"},
		{name: "media before smbios", in: []Candidate{{SourceMedia, []byte(good1)}, {SourceSMBIOS, []byte(good2)}}, source: SourceMedia, hostname: "one", store: true},
		{name: "smbios alone", in: []Candidate{{SourceSMBIOS, []byte(good2)}}, source: SourceSMBIOS, hostname: "two", store: true},
		{name: "bad state falls to last known good", in: []Candidate{{SourceState, []byte(bad)}, {SourceGood, []byte(good1)}, {SourceSMBIOS, []byte(good2)}}, source: SourceGood, hostname: "one", refused: []Source{SourceState}},
		{name: "bad smbios leaves the defaults", in: []Candidate{{SourceSMBIOS, []byte(bad)}}, source: SourceDefault, hostname: "cairn", refused: []Source{SourceSMBIOS}},
		{name: "a higher revision from outside wins", in: []Candidate{{SourceState, []byte(good1)}, {SourceSMBIOS, []byte(good2 + "revision: 1\n")}}, source: SourceSMBIOS, hostname: "two", store: true},
		{name: "the same revision does not", in: []Candidate{{SourceState, []byte(good1 + "revision: 1\n")}, {SourceSMBIOS, []byte(good2 + "revision: 1\n")}}, source: SourceState, hostname: "one"},
		{name: "nor does a wrong document", in: []Candidate{{SourceState, []byte(good1)}, {SourceSMBIOS, []byte(bad + "revision: 1\n")}}, source: SourceState, hostname: "one"},
		{name: "last known good is no older", in: []Candidate{{SourceState, []byte(good1)}, {SourceGood, []byte(good2)}}, source: SourceState, hostname: "one"},
		{name: "bad media falls to smbios", in: []Candidate{{SourceMedia, []byte(bad)}, {SourceSMBIOS, []byte(good2)}}, source: SourceSMBIOS, hostname: "two", store: true, refused: []Source{SourceMedia}},
	} {
		got := Choose(c.in)
		if got.Source != c.source || got.Document.Hostname != c.hostname || got.Store != c.store {
			t.Errorf("%s: got %s %q store=%v", c.name, got.Source, got.Document.Hostname, got.Store)
		}
		if len(got.Refusals) != len(c.refused) {
			t.Errorf("%s: refusals %+v, want %v", c.name, got.Refusals, c.refused)
			continue
		}
		for i, s := range c.refused {
			if got.Refusals[i].Source != s || got.Refusals[i].Line != 2 {
				t.Errorf("%s: refusal %+v, want source %s line 2", c.name, got.Refusals[i], s)
			}
		}
	}
}
