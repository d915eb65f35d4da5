package oom

import (
	"os"
	"slices"
	"testing"
	"time"
)

const (
	shop = "0f5d9a6e-5c3b-4c6e-9a57-3a3f0a1d2b4c"
	web  = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
)

// TestParse reads a log in which a service, a guest's TPM and two guests were
// killed, one of them for want of the host's memory and one for its own limit.
func TestParse(t *testing.T) {
	log, err := os.ReadFile("testdata/kernel-log")
	if err != nil {
		t.Fatal(err)
	}
	want := []Kill{
		{Guest: shop, PID: 2201, At: 4*time.Minute + 10*time.Second + 517334*time.Microsecond},
		{Guest: web, PID: 3310, At: 26*time.Hour + 53*time.Microsecond},
	}
	if got := Parse(string(log)); !slices.Equal(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestParseRefuses(t *testing.T) {
	const group = "task_memcg=/machine/qemu-1-" + shop + ".libvirt-qemu"
	for _, line := range []string{
		"",
		"oom-kill:constraint=",
		"<6>[    1.000000] oom-kill:constraint=X,pid=1",
		"oom-kill:constraint=X," + group + ",task=q,pid=1,uid=0",                          // says no time
		"[ 9999999999.000000] oom-kill:constraint=X," + group + ",task=q,pid=1,uid=0",     // no time there is
		"[    1.000000] " + group + ",task=q,pid=1,uid=0",                                 // says not what it is
		"[    1.000000] oom-kill:constraint=X,task_memcg=/svc/x,task=" + group + ",pid=1", // a process that is named like that
		"[    1.000000] oom-kill:constraint=X,task_memcg=/machine/qemu-1-other.libvirt-qemu,task=q,pid=1",
	} {
		if got := Parse(line); len(got) > 0 {
			t.Errorf("%q: got %+v", line, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	log, err := os.ReadFile("testdata/kernel-log")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(log))
	f.Fuzz(func(t *testing.T, log string) {
		for _, k := range Parse(log) {
			if len(k.Guest) != 36 || k.At < 0 {
				t.Errorf("%+v", k)
			}
		}
	})
}
