package hostd

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func TestNICAliases(t *testing.T) {
	sys := t.TempDir()
	for file, text := range map[string]string{
		"bus/pci/devices/0000:00:03.0/class":    "0x020000\n",
		"bus/pci/devices/0000:00:03.0/modalias": "pci:v00008086d000010D3sv00\n",
		"bus/pci/devices/0000:00:04.0/class":    "0x010802\n",
		"bus/pci/devices/0000:00:04.0/modalias": "pci:nvme\n",
		"bus/pci/devices/0000:00:05.0/class":    "0x028000\n", // "other" network controllers
		"bus/pci/devices/0000:00:05.0/modalias": "pci:wifi\n",
		"bus/virtio/devices/virtio0/modalias":   "virtio:d00000001v00001AF4\n",
		"bus/virtio/devices/virtio1/modalias":   "virtio:d00000002v00001AF4\n",
		"bus/virtio/devices/virtio2/modalias":   "virtio:d00000010v00001AF4\n",
	} {
		path := filepath.Join(sys, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"pci:v00008086d000010D3sv00", "pci:wifi", "virtio:d00000001v00001AF4"}
	if got := nicAliases(sys); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
