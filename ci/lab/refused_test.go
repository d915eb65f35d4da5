//go:build lab

package lab_test

import (
	"strings"
	"testing"

	"cairn/ci/lab"
	"cairn/image/debian"
)

// TestRefusedMachine has QEMU end at once; its own words are in the error.
func TestRefusedMachine(t *testing.T) {
	tools, err := debian.Open(t.Context(), debian.Config{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = lab.Start(t.Context(), lab.Config{Tools: tools, Firmware: lab.Direct, Kernel: "/does/not/exist", Initrd: "/neither"})
	if err == nil || !strings.Contains(err.Error(), "/does/not/exist") {
		t.Errorf("got %v", err)
	}
}
