package supervise

import (
	"strings"
	"testing"
	"time"
)

func TestParseHang(t *testing.T) {
	tests := []struct {
		in   string
		want time.Duration
	}{
		{"quiet cairn.test.hang-pid1=30 console=ttyS0\n", 30 * time.Second},
		{"cairn.test.hang-pid1=0", 0},
		{"cairn.test.hang-pid1=soon", 0},
		{"cairn.test.hang-pid1=99999999999999999999", 0},
		{"xcairn.test.hang-pid1=30", 0},
		{"", 0},
	}
	for _, tt := range tests {
		if got := parseHang(tt.in); got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.in, got, tt.want)
		}
	}
}

func FuzzParseHang(f *testing.F) {
	f.Add("cairn.test.hang-pid1=30")
	f.Fuzz(func(t *testing.T, s string) {
		if d := parseHang(s); d < 0 || d > 24*time.Hour || (d > 0 && !strings.Contains(s, "hang-pid1=")) {
			t.Errorf("%q gives %v", s, d)
		}
	})
}
