package mountinfo

import (
	"os"
	"testing"
)

func TestParse(t *testing.T) {
	in := `22 1 253:0 / / ro,relatime shared:1 - erofs /dev/dm-0 ro
30 22 8:7 / /state rw,nosuid,nodev shared:2 - ext4 /dev/sda7 rw
31 30 8:7 /libvirt /var/lib/libvirt rw shared:2 master:3 - ext4 /dev/sda7 rw
not a line
33 22 0:5 / /mnt/a\040b\134 rw - tmpfs tmp\011fs rw
`
	got := Parse([]byte(in))
	want := []Mount{
		{"/", "erofs", "/dev/dm-0", "ro,relatime"},
		{"/state", "ext4", "/dev/sda7", "rw,nosuid,nodev"},
		{"/var/lib/libvirt", "ext4", "/dev/sda7", "rw"},
		{`/mnt/a b\`, "tmpfs", "tmp\tfs", "rw"},
	}
	if len(got) != len(want) {
		t.Fatalf("got %+v", got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("got %+v, want %+v", got[i], want[i])
		}
	}
	if !got[0].ReadOnly() || got[1].ReadOnly() || !got[1].Stored() || got[3].Stored() {
		t.Error("read-only or stored is wrong")
	}
}

func TestOwnMounts(t *testing.T) {
	data, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range Parse(data) {
		if m.Path == "/proc" && m.Type == "proc" {
			return
		}
	}
	t.Errorf("/proc is not among %+v", Parse(data))
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("36 35 98:0 /r /m\\040 rw,noatime master:1 - ext3 /dev/sda1 rw\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, m := range Parse(data) {
			if m.Path == "" || m.Type == "" {
				t.Errorf("%q gives %+v", data, m)
			}
		}
	})
}
