package main

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"cairn/toolstack/datamodel"
)

func TestCountFailsWhenAMessageLosesItsTest(t *testing.T) {
	m, err := datamodel.Load()
	if err != nil {
		t.Fatal(err)
	}
	found := map[string][]string{}
	parse(found, []byte("VM.start TestB\nVM.start TestA\nVM.get_uuid TestA\nhost.license_apply TestRemoved\n"))
	c := count(m, found)
	if got, want := string(c.list()), "VM.get_uuid TestA\nVM.start TestA\n"; got != want {
		t.Errorf("list %q, want %q: the removed message does not count", got, want)
	}
	if c.total.explicit != 1 || c.total.implicit != 1 {
		t.Errorf("counted %d explicit and %d implicit", c.total.explicit, c.total.implicit)
	}
	if err := c.compare([]byte("VM.start TestA\n"), io.Discard); err != nil {
		t.Error(err)
	}
	err = c.compare([]byte("VM.start TestA\nVM.shutdown TestA\n"), io.Discard)
	if err == nil || !strings.Contains(err.Error(), "1 messages lost their test: VM.shutdown") {
		t.Errorf("%v, want VM.shutdown named", err)
	}
	if !bytes.Contains(c.page(), []byte("| all | 1 of ")) {
		t.Error("the page has no sum")
	}
}
