package agent

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	tests := []struct{ line, want string }{
		{"disks", ""},
		{"  sum   sda ", ""},
		{"sum 0f5e2b1c-7c3a-4d11-9d3e-2f6a1b0c9d8e", ""},
		{"fill sda 7 16", ""},
		{"fill sda 7 16 32", ""},
		{"scatter sda 7 64 0 16", ""},
		{"scatter sda 7 0 0 16", "not a number from 1"},
		{"scatter sda 7 64 0", "5 to 5 words, not 4"},
		{"mount-cd", ""},
		{"mount-cd sr1", ""},
		{"ip eth0 10.0.0.2/24", ""},
		{"send eth0 ffffffffffff0200000000010806", ""},
		{"listen eth0 3 10", ""},
		{"", "unknown command"},
		{"rm -rf /", "unknown command"},
		{"sum", "1 to 1 words, not 0"},
		{"sum sda sdb", "1 to 1 words, not 2"},
		{"disks all", "0 to 0 words"},
		{"sum ../mem", "not a name"},
		{"sum /dev/sda", "not a name"},
		{"fill sda x 16", "not a number"},
		{"fill sda 1 0", "not a number from 1"},
		{"fill sda 1 -5", "not a number"},
		{"fill sda 1 99999999999999999999", "not a number"},
		{"ip eth0 10.0.0.2", "invalid CIDR"},
		{"ip eth0 fe80::1/64", "not IPv4"},
		{"nics 02:00:00:00:00:01", ""},
		{"nics eth0", "invalid MAC"},
		{"send eth0 ff", "a frame of 1 bytes"},
		{"send eth0 xyz", "invalid byte"},
		{"send ../eth0 ffffffffffff0200000000010806", "not a name"},
		{"listen eth0 0 10", "not a number"},
		{"listen eth0 1 100000", "not a number"},
	}
	for _, tt := range tests {
		t.Run(tt.line, func(t *testing.T) {
			_, err := parse(tt.line)
			if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestAnswers: what is no command is left to others, all else is answered.
func TestAnswers(t *testing.T) {
	var w bytes.Buffer
	if err := Run(&w, "hello"); !errors.Is(err, ErrUnknown) || w.Len() > 0 {
		t.Errorf("an unknown line: %v, %q", err, &w)
	}
	findLimit = 0
	if err := Run(&w, "sum none-such"); err != nil || !strings.HasPrefix(w.String(), "sum failed err=") {
		t.Errorf("a missing disk: %v, %q", err, &w)
	}
	w.Reset()
	if err := Run(&w, "memory"); err != nil || !strings.Contains(w.String(), "\nmemory ok ms=") {
		t.Errorf("memory: %v, %q", err, &w)
	}
	w.Reset()
	if err := Run(&w, "fill a"); err != nil || !strings.HasPrefix(w.String(), "fill failed err=") {
		t.Errorf("words missing: %v, %q", err, &w)
	}
}

// TestPattern: tests elsewhere compute what a guest has written, also after an
// update of this code.
func TestPattern(t *testing.T) {
	h := sha256.New()
	if _, err := io.CopyN(h, Pattern(7), 1<<20); err != nil {
		t.Fatal(err)
	}
	const want = "7a0b5ad8fe5bfdbbb829a5315c91967e8987c3ae530a292319aa41c41c1b226e"
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != want {
		t.Errorf("got %s", got)
	}
}

// TestScattered: the writes stay where they should, are repeatable, and do not fall on
// whole blocks of anything.
func TestScattered(t *testing.T) {
	const at, size = 3 << 20, 1 << 20
	once := func(seed int64) string {
		h := sha256.New()
		odd := false
		err := Scattered(seed, 200, at, size, func(b []byte, off int64) error {
			if off < at || off+int64(len(b)) > at+size || len(b) == 0 || off%512 != 0 || len(b)%512 != 0 {
				t.Errorf("%d bytes at %d", len(b), off)
			}
			odd = odd || off%4096 != 0 && len(b)%4096 != 0
			fmt.Fprintf(h, "%d %x\n", off, b)
			return nil
		})
		if err != nil || !odd {
			t.Errorf("only whole pages: %v, %v", !odd, err)
		}
		return fmt.Sprintf("%x", h.Sum(nil))
	}
	if first := once(1); once(1) != first || once(2) == first {
		t.Error("equal seeds make equal writes, others not")
	}
	if err := Scattered(1, 2, 0, size, func([]byte, int64) error { return io.ErrShortWrite }); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("a write that fails: %v", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"disks", "fill sda 1 2 3", "send eth0 00", "ip a 1.2.3.4/5", "listen \x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		c, err := parse(line)
		if err == nil && commands[c.name].run == nil {
			t.Errorf("%q became %+v", line, c)
		}
	})
}
