package supervise

import (
	"os"
	"path/filepath"
	"testing"
)

func TestLowerReserve(t *testing.T) {
	tests := []struct {
		name, meminfo, now, want string
		fails                    bool
	}{
		{"2 GiB", "MemTotal: 2018928 kB\n", "67584\n", "16384\n", false},
		{"4 GiB", "MemFree: 1 kB\nMemTotal: 4194304 kB\n", "67584\n", "32768\n", false},
		{"never more than the kernel's", "MemTotal: 67108864 kB\n", "90112\n", "90112\n", false},
		{"no total", "MemFree: 1 kB\n", "67584\n", "67584\n", true},
		{"not a number", "MemTotal: 2018928 kB\n", "much\n", "much\n", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			proc := t.TempDir()
			path := filepath.Join(proc, "sys/vm/min_free_kbytes")
			for name, text := range map[string]string{filepath.Join(proc, "meminfo"): tt.meminfo, path: tt.now} {
				if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if err := lowerReserve(proc); (err != nil) != tt.fails {
				t.Errorf("error %v", err)
			}
			if got, _ := os.ReadFile(path); string(got) != tt.want {
				t.Errorf("min_free_kbytes %q, want %q", got, tt.want)
			}
		})
	}
}
