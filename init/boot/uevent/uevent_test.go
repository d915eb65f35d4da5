package uevent

import (
	"context"
	"errors"
	"reflect"
	"testing"
)

func TestParse(t *testing.T) {
	got, err := Parse([]byte("add@/devices/x/block/vda\x00ACTION=add\x00SUBSYSTEM=block\x00odd\x00A=b=c\x00"))
	if err != nil {
		t.Fatal(err)
	}
	want := Event{Action: "add", DevPath: "/devices/x/block/vda",
		Vars: map[string]string{"ACTION": "add", "SUBSYSTEM": "block", "A": "b=c"}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("Parse = %+v, want %+v", got, want)
	}
	for _, bad := range []string{"", "libudev\x00", "@/x", "add@x", "add"} {
		if _, err := Parse([]byte(bad)); err == nil {
			t.Errorf("Parse(%q) accepted", bad)
		}
	}
}

// TestNextEndsWithContext needs no event: it checks that a wait is bounded.
func TestNextEndsWithContext(t *testing.T) {
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for {
		if _, err = s.Next(ctx); err != nil {
			break
		}
	}
	if !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		t.Errorf("Next = %v, want the context's end", err)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("add@/devices/x\x00ACTION=add\x00"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		if e, err := Parse(b); err == nil && (e.Action == "" || e.DevPath == "") {
			t.Errorf("Parse(%q) = %+v", b, e)
		}
	})
}
