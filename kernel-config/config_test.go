package kernelconfig

import (
	"strings"
	"testing"

	"cairn/golden"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name, text string
		symbol     string
		want       string
		err        string
	}{
		{"built in", "CONFIG_EFI=y\n", "CONFIG_EFI", "y", ""},
		{"module", "CONFIG_KVM=m", "CONFIG_KVM", "m", ""},
		{"number", "CONFIG_KVM_MAX_NR_VCPUS=4096", "CONFIG_KVM_MAX_NR_VCPUS", "4096", ""},
		{"text with equals sign", `CONFIG_CMDLINE="a=b #c"`, "CONFIG_CMDLINE", `"a=b #c"`, ""},
		{"not set", "# CONFIG_DM_EBS is not set", "CONFIG_DM_EBS", "n", ""},
		{"comment", "# Linux is not set\n\nCONFIG_X=y", "CONFIG_X", "y", ""},
		{"lower case symbol", "CONFIG_SND_HDA_i915=y", "CONFIG_SND_HDA_i915", "y", ""},
		{"no value", "CONFIG_X=", "", "", "line 1"},
		{"no symbol", "CONFIG_A=y\nhello", "", "", "line 2"},
		{"twice", "CONFIG_A=y\n# CONFIG_A is not set", "", "", "CONFIG_A is set twice"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse(strings.NewReader(tt.text))
			if tt.err != "" {
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Fatalf("error %v, want one with %q", err, tt.err)
				}
				return
			}
			if err != nil || got[tt.symbol] != tt.want {
				t.Errorf("%s = %q, %v; want %q", tt.symbol, got[tt.symbol], err, tt.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=\"x\"\n")
	f.Add("# CONFIG_ is not set")
	f.Fuzz(func(t *testing.T, text string) {
		values, err := Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		for s, v := range values {
			if !isSymbol(s) || v == "" {
				t.Errorf("accepted %q=%q", s, v)
			}
		}
	})
}

func TestRequirementsAreKept(t *testing.T) {
	groups, err := Requirements()
	if err != nil {
		t.Fatal(err)
	}
	required := 0
	for _, g := range groups {
		for _, r := range g.Requirements {
			if r.Wanted && r.Reason == "" {
				t.Errorf("%s is only wanted and gives no reason", r.Symbol)
			}
			if !r.Wanted {
				required++
			}
		}
	}
	if required != 567 {
		t.Errorf("%d symbols required; the appliance was designed against 567", required)
	}
}

func TestReport(t *testing.T) {
	groups, err := parseSymbols([]byte(`
[boot]
CONFIG_EFI=y
CONFIG_DM_VERITY=m
CONFIG_EROFS_FS=m
[kvm]
CONFIG_KVM=m
CONFIG_NR=4096
CONFIG_IOMMUFD=m ?  # type1 is enough
`))
	if err != nil {
		t.Fatal(err)
	}
	values, err := Parse(strings.NewReader("CONFIG_EFI=m\nCONFIG_DM_VERITY=y\nCONFIG_NR=512\nCONFIG_KVM=m\n"))
	if err != nil {
		t.Fatal(err)
	}
	rep := compare(groups, values)
	golden.Equal(t, "testdata/report.txt", rep.String()+"\n"+rep.Err().Error()+"\n")
}

func TestSymbolListErrors(t *testing.T) {
	for _, text := range []string{"CONFIG_A=y", "[a]\nCONFIG_A", "[a]\nA=y", "[a]\nCONFIG_A=y\nCONFIG_A=m"} {
		if _, err := parseSymbols([]byte(text)); err == nil {
			t.Errorf("accepted %q", text)
		}
	}
}
