package vm

import (
	"testing"

	"cairn/toolstack/hypervisor"
)

// TestWhatAnImageIsWorth: of all that may be found, only a whole image of this boot,
// whose domain is not known to have ended otherwise, is a machine's memory.
func TestWhatAnImageIsWorth(t *testing.T) {
	reasons := map[hypervisor.Reason]bool{
		"": true, hypervisor.BySave: true,
		hypervisor.ByGuest: false, hypervisor.ByCrash: false, hypervisor.ByDestroy: false,
	}
	for why, saved := range reasons {
		for _, l := range []leftover{
			{why: why}, {why: why, whole: true}, {why: why, sameBoot: true}, {why: why, sameBoot: true, whole: true},
		} {
			if want := saved && l.sameBoot && l.whole; l.good() != want {
				t.Errorf("%+v: good %t, want %t", l, l.good(), want)
			}
			if l.good() && !l.mayBeGood() {
				t.Errorf("%+v: good without a look into it", l)
			}
		}
	}
}
