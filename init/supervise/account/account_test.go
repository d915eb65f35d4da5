package account

import (
	"reflect"
	"testing"
)

const (
	passwd = `root:x:0:0:root:/root:/bin/sh
# comment:x:1:1:::
cairn:x:990:990::/var/lib/cairn:/bin/false
cairn:x:0:0::/:/bin/sh
broken:x:one:1::/:
short:x:1
_chrony:x:101:101::/:
`
	group = `root:x:0:
cairn:x:990:
kvm:x:991:libvirt-qemu,cairn
disk:x:6:cairn
`
)

func TestUser(t *testing.T) {
	b := Parse([]byte(passwd), []byte(group))
	tests := []struct {
		user, group string
		want        User
		bad         bool
	}{
		{"", "", User{Name: "root", Home: "/root"}, false},
		{"cairn", "", User{Name: "cairn", UID: 990, GID: 990, Home: "/var/lib/cairn", Groups: []uint32{991, 6}}, false},
		{"cairn", "kvm", User{Name: "cairn", UID: 990, GID: 991, Home: "/var/lib/cairn", Groups: []uint32{991, 6}}, false},
		{"_chrony", "", User{Name: "_chrony", UID: 101, GID: 101, Home: "/"}, false},
		{"broken", "", User{}, true},
		{"short", "", User{}, true},
		{"cairn", "nobody", User{}, true},
	}
	for _, tt := range tests {
		got, err := b.User(tt.user, tt.group)
		if (err != nil) != tt.bad {
			t.Errorf("%s:%s: %v", tt.user, tt.group, err)
		}
		if !tt.bad && !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s:%s: got %+v, want %+v", tt.user, tt.group, got, tt.want)
		}
	}
}

func TestRootIsAlwaysKnown(t *testing.T) {
	b, err := Read(t.TempDir())
	if err == nil {
		t.Error("missing files are no error")
	}
	u, err := b.User("root", "root")
	if err != nil || u.UID != 0 || u.GID != 0 {
		t.Errorf("got %+v, %v", u, err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(passwd), []byte(group))
	f.Fuzz(func(t *testing.T, p, g []byte) {
		u, err := Parse(p, g).User("", "")
		if err != nil || u.Name != "root" {
			t.Errorf("got %+v, %v", u, err)
		}
	})
}
