package proc

import (
	"os"
	"reflect"
	"testing"
	"testing/fstest"
	"time"
)

// files are those of a machine of two CPUs.
func files() fstest.MapFS {
	return fstest.MapFS{
		"stat": {Data: []byte("cpu  300 10 100 4000 200 0 30 60 500 0\ncpu0 100 10 50 2000 100 0 20 30 250 0\ncpu1 200 0 50 2000 100 0 10 30 250 0 99\n" +
			"cpux 1\ncpu2 1 2\nintr 1 0 0\nctxt 5\n")},
		"meminfo": {Data: []byte("MemTotal:       16000 kB\nMemFree:         1000 kB\nMemAvailable:    9000 kB\nHugePages_Total:       0\n")},
		"loadavg": {Data: []byte("0.52 0.58 0.59 1/467 12345\n")},
		"net/dev": {Data: []byte("Inter-|   Receive                                                |  Transmit\n" +
			" face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n" +
			"    lo:  100 1 0 0 0 0 0 0  100 1 0 0 0 0 0 0\n  eth0:12345 10 3 0 0 0 0 0 6789 9 4 0 0 0 0 0\n bad0: 1 2\n bad1: x 1 0 0 0 0 0 0  100 1 0 0 0 0 0 0\n")},
	}
}

func TestRead(t *testing.T) {
	h, err := Root{files()}.Read()
	want := Host{
		CPUs:   map[int]CPU{0: {2100 * time.Millisecond, 21 * time.Second}, 1: {2900 * time.Millisecond, 21 * time.Second}},
		Memory: Memory{16000 << 10, 9000 << 10}, Load: 0.52,
		NICs: map[string]NIC{"lo": {100, 100, 0, 0}, "eth0": {12345, 6789, 3, 4}},
	}
	if err != nil || !reflect.DeepEqual(h, want) {
		t.Errorf("%+v, %v\nwant %+v", h, err, want)
	}
}

// TestReadWhatThereIs: a file that cannot be read costs its own figures only.
func TestReadWhatThereIs(t *testing.T) {
	for _, name := range []string{"stat", "meminfo", "loadavg", "net/dev"} {
		some := files()
		delete(some, name)
		h, err := Root{some}.Read()
		if err == nil || (h.Memory.Total == 0) != (name == "meminfo") || (len(h.CPUs) == 0) != (name == "stat") {
			t.Errorf("without %s: %+v, %v", name, h, err)
		}
	}
	for name, text := range map[string]string{"stat": "intr 5\n", "meminfo": "MemTotal: x kB\n", "loadavg": "much\n"} {
		bad := files()
		bad[name] = &fstest.MapFile{Data: []byte(text)}
		if _, err := (Root{bad}).Read(); err == nil {
			t.Errorf("%s is read as %q", name, text)
		}
	}
}

// TestOwnMachine: the kernel this runs on is understood.
func TestOwnMachine(t *testing.T) {
	h, err := Root{os.DirFS("/proc")}.Read()
	if err != nil || h.Memory.Available <= 0 || len(h.CPUs) == 0 || h.NICs == nil {
		t.Errorf("%+v, %v", h, err)
	}
}

func FuzzRead(f *testing.F) {
	for name, file := range files() {
		f.Add(name, string(file.Data))
	}
	f.Fuzz(func(t *testing.T, name, text string) {
		some := files()
		if some[name] == nil {
			return
		}
		some[name] = &fstest.MapFile{Data: []byte(text)}
		h, err := Root{some}.Read()
		if err == nil && (h.Memory.Total <= 0 || len(h.CPUs) == 0) {
			t.Errorf("%+v", h)
		}
		for n, c := range h.CPUs {
			if n < 0 || c.Busy < 0 || c.Idle < 0 {
				t.Errorf("cpu %d: %+v", n, c)
			}
		}
	})
}
