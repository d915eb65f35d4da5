package host

import (
	"strings"
	"testing"
)

func TestFeatureWords(t *testing.T) {
	seen := map[string]bool{}
	for i, names := range featureWords {
		fields := strings.Fields(names)
		if len(fields) > 32 {
			t.Errorf("word %d has %d bits", i, len(fields))
		}
		for _, n := range fields {
			if n != "-" && seen[n] {
				t.Errorf("%s is named twice", n)
			}
			seen[n] = true
		}
	}
}

// TestFeatureSet: the bits are those of the vendors' manuals.
func TestFeatureSet(t *testing.T) {
	for _, tt := range []struct{ flags, want string }{
		{"", "00000000-00000000-00000000-00000000-00000000-00000000-00000000-00000000-00000000-00000000"},
		{"fpu pbe", "80000001-00000000-00000000-00000000-00000000-00000000-00000000-00000000-00000000-00000000"},
		{"pni vmx hypervisor", "00000000-80000021-00000000-00000000-00000000-00000000-00000000-00000000-00000000-00000000"},
		{"aes xsave", "00000000-06000000-00000000-00000000-00000000-00000000-00000000-00000000-00000000-00000000"},
		{"nx lm syscall", "00000000-00000000-20100800-00000000-00000000-00000000-00000000-00000000-00000000-00000000"},
		{"svm topoext mwaitx", "00000000-00000000-00000000-20400004-00000000-00000000-00000000-00000000-00000000-00000000"},
		{"avx2 smep avx512vl", "00000000-00000000-00000000-00000000-00000000-800000a0-00000000-00000000-00000000-00000000"},
		{"umip la57 rdpid movdir64b", "00000000-00000000-00000000-00000000-00000000-00000000-10410004-00000000-00000000-00000000"},
		{"nonstop_tsc ibpb stibp md_clear arch_capabilities", "00000000-00000000-00000000-00000000-00000000-00000000-00000000-00000100-00009000-20000400"},
	} {
		if got := featureSet(strings.Fields(tt.flags)); got != tt.want {
			t.Errorf("%q:\ngot  %s\nwant %s", tt.flags, got, tt.want)
		}
	}
}
