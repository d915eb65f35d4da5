package supervise

import (
	"testing"

	"cairn/init/supervise/catalogue"
)

func TestLabServices(t *testing.T) {
	for cmdline, want := range map[string]string{
		"quiet cairn.debug=ttyS1 panic=10": "/dev/ttyS1",
		"quiet":                            "",
		"cairn.debug=":                     "",
		"cairn.debug=../sda":               "",
		"xcairn.debug=ttyS1":               "",
	} {
		got := labServices(cmdline)
		if len(got) != 0 && want == "" || want != "" && (len(got) != 1 || got[0].Argv[2] != want) {
			t.Errorf("%q: %+v", cmdline, got)
		}
		if err := catalogue.Validate(append(catalogue.All(), got...)); err != nil {
			t.Errorf("%q: %v", cmdline, err)
		}
	}
}
