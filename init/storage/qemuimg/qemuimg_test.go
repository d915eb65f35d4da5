package qemuimg

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"cairn/init/hostd/client"
	"cairn/init/storage/tool"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestCommands(t *testing.T) {
	for want, c := range map[string]tool.Command{
		"qemu-img create -q -f raw /v 512": Create("/v", client.Raw, 512, Overlay{}),
		"qemu-img create -q -f qcow2 -o cluster_size=65536,compat=1.1,lazy_refcounts=off -u -b b.raw -F raw /v 1024": Create("/v", client.Qcow2, 1024, Overlay{"b.raw", client.Raw}),
		"qemu-img resize -q -f qcow2 /v 7":                      Resize("/v", client.Qcow2, 7),
		"qemu-img rebase -q -u -f qcow2 -b b.qcow2 -F qcow2 /v": Rebase("/v", Overlay{"b.qcow2", client.Qcow2}),
		"qemu-img commit -p -d -f qcow2 /v":                     Commit("/v", nil),
		"qemu-img convert -p -f raw -O raw /a /b":               Convert("/a", client.Raw, "/b", client.Raw, nil),
		"qemu-img check --output=json -f qcow2 /v":              Check("/v"),
		"qemu-img check -q -r leaks -f qcow2 /v":                Tidy("/v"),
	} {
		if got := c.String(); got != want || !c.Confined {
			t.Errorf("%s, want %s", got, want)
		}
	}
}

func TestParseCheck(t *testing.T) {
	c, err := ParseCheck(read(t, "check-clean.json"), nil)
	if err != nil || c.Errors != 0 || c.Leaks != 0 || c.End == 0 {
		t.Errorf("clean: %+v, %v", c, err)
	}
	c, err = ParseCheck(nil, &tool.Failure{Code: 2, Output: read(t, "check-corrupt.json")})
	if err != nil || c.Errors != 2 {
		t.Errorf("corrupt: %+v, %v", c, err)
	}
	if _, err = ParseCheck(nil, &tool.Failure{Code: 1, Stderr: "cannot open"}); err == nil {
		t.Error("a failure is taken for an answer")
	}
	if _, err = ParseCheck([]byte("{"), nil); err == nil {
		t.Error("half an answer is taken for one")
	}
}

func FuzzParseCheck(f *testing.F) {
	f.Add(read(f, "check-clean.json"))
	f.Add(read(f, "check-corrupt.json"))
	f.Fuzz(func(_ *testing.T, b []byte) { _, _ = ParseCheck(b, nil) })
}

// TestFullSize compares with what QEMU 10's measure answers.
func TestFullSize(t *testing.T) {
	for size, measured := range map[int64]int64{1 << 20: 1376256, 64 << 20: 67436544, 10 << 30: 10739318784, 1 << 40: 1099679662080} {
		got := FullSize(client.Qcow2, size)
		if got < measured || got > measured+measured/1000+3<<20 {
			t.Errorf("%d: %d, measured %d", size, got, measured)
		}
	}
	if FullSize(client.Raw, 512) != 512 {
		t.Error("a raw image takes its size")
	}
}

func TestProgress(t *testing.T) {
	var seen []float64
	p := Progress(func(f float64) { seen = append(seen, f) })
	for _, part := range []string{"    (0.00/100%)\r    (12.", "50/100%)\r(no/100%)\r(200/100%)\r(NaN/100%)\r", "junk\n    (100.00/100%)\r\nImage committed.\n"} {
		p([]byte(part))
	}
	if !slices.Equal(seen, []float64{0, 0.125, 1}) {
		t.Errorf("%v", seen)
	}
	Progress(nil)([]byte("(1.00/100%)\r"))
}

func FuzzProgress(f *testing.F) {
	f.Add([]byte("    (12.50/100%)\r"), 3)
	f.Fuzz(func(t *testing.T, b []byte, cut int) {
		p := Progress(func(f float64) {
			if !(f >= 0 && f <= 1) {
				t.Errorf("%v", f)
			}
		})
		cut = max(0, min(cut, len(b)))
		p(b[:cut])
		p(b[cut:])
	})
}

// TestServeDirect: only the layer that is written passes the page cache by.
func TestServeDirect(t *testing.T) {
	chain := []Layer{{Path: "/top", Format: client.Qcow2, Direct: true}, {Path: "/base", Format: client.Raw, Block: true}}
	cmd, err := Serve(chain, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := `json:{"backing":{"driver":"raw","file":{"driver":"host_device","filename":"/base"}},"driver":"qcow2",` +
		`"file":{"cache":{"direct":true},"driver":"file","filename":"/top"}}`
	if got := cmd.Args[len(cmd.Args)-1]; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
