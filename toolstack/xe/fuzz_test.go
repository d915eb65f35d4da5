package xe

import (
	"strings"
	"testing"
)

// FuzzSelectors feeds command lines, one word a line, to everything that reads
// them: switches, parameters, and the filters of each class.
func FuzzSelectors(f *testing.F) {
	for _, seed := range []string{
		"vm-list\n-s\nh\nparams=all\nother-config:k=v\n--minimal",
		"vm-start\nvm=demo\n--multiple\ntags:contains=a",
		"event-wait\nclass=vm\nuuid=u\nstart-time=/=20260101T00:00:00Z",
		"vif-list\nMAC=aa:bb\nother-config-k=v",
		"server=h\nport=8443\nusername=u\npassword=a=b\nhost-list\naddress=1",
		"sr-list\nother-config:\n=x\n:=\n--\n-\n--=",
		"network-param-set\nuuid=u\nMTU=9000MiB\nother-config:a:b=c",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		inv, err := Parse(strings.Split(text, "\n"))
		if err != nil {
			return
		}
		if inv.Port < 1 || inv.Port > 65535 {
			t.Errorf("port %d", inv.Port)
		}
		if strings.Contains(inv.Command, "=") {
			t.Errorf("command %q", inv.Command)
		}
		for _, p := range inv.Params {
			if p.Name == "" {
				t.Errorf("a parameter without a name: %+v", p)
			}
		}
		checkFilters(t, inv)
	})
}

// checkFilters holds what the classes make of the parameters to its promises.
func checkFilters(t *testing.T, inv Invocation) {
	classes := load().Classes
	if c := load().generic[inv.Command]; c != nil {
		classes = []*Class{c}
	}
	for _, c := range classes {
		tests, err := c.filters(inv.Params.Without("params").Without(standard...))
		if err != nil {
			continue
		}
		for _, x := range tests {
			if x.field == nil || x.key != "" && x.field.Kind == "" {
				t.Errorf("%s: filter %+v", c.Name, x)
			}
			x.holds(shown{text: "v", set: []string{"v"}, pairs: map[string]string{"k": "v"}})
		}
	}
	inv.Params.Map("other-config")
	for _, a := range extraArgs(inv.Command) {
		if a == "" {
			t.Error("an empty word")
		}
	}
	if _, err := wholeNumber("size", inv.Server); err == nil && inv.Server == "" {
		t.Error("nothing is a number")
	}
}
