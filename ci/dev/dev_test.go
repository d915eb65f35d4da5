package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn/ci/devhost"
)

func TestMain(m *testing.M) {
	devhost.Main()
	os.Exit(m.Run())
}

// TestMakeBuildsTheHints: what is printed to try is there.
func TestMakeBuildsTheHints(t *testing.T) {
	text, err := os.ReadFile("../../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\ndev: ")
	if needs, _, _ := strings.Cut(rest, " ##"); needs != "deps bin" {
		t.Errorf("make dev needs %q; its hints begin with the client that bin builds", needs)
	}
}

func TestHints(t *testing.T) {
	for _, c := range []struct {
		cfg  config
		want []string
	}{
		{config{Listen: "127.0.0.1:8443", Bin: ".build/bin", Dir: ".build/dev"}, []string{
			".build/bin/xe -s 127.0.0.1 -p 8443 -u root -pw cairn host-list\n", `vm-install template="Cairn demo guest"`, "https://127.0.0.1:8443/jsonrpc",
		}},
		{config{Listen: "127.0.0.1:1", SimHosts: 3}, []string{"vm-list power-state=halted"}},
	} {
		got := hints(c.cfg)
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("no %q in\n%s", want, got)
			}
		}
		if n := strings.Count(got, "\n  "); n != 3 {
			t.Errorf("%d things to try", n)
		}
	}
}

func TestLog(t *testing.T) {
	l, err := openLog(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for i := range 40 {
		fmt.Fprintf(l, "line %d\nINFO toolstackd api-", i)
		fmt.Fprint(l, "not yet\n")
	}
	select {
	case <-l.ready:
		t.Fatal("ready too early")
	default:
	}
	fmt.Fprint(l, "2026 INFO toolstackd api-re")
	fmt.Fprint(l, "ady addr=x\n2026 INFO toolstackd api-ready addr=x\n")
	<-l.ready
	if text := l.explain().Error(); strings.Contains(text, "line 10\n") || !strings.Contains(text, "line 39\n") {
		t.Errorf("the tail is %s", text)
	}
}

func TestListen(t *testing.T) {
	for _, bad := range []string{"0.0.0.0:0", "192.0.2.1:80", "nonsense"} {
		if l, err := listen(bad); err == nil {
			l.Close()
			t.Errorf("listens on %s", bad)
		}
	}
	l, err := listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
}

func TestOneRunPerDirectory(t *testing.T) {
	dir := t.TempDir()
	lock, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := openDir(dir); err == nil {
		t.Error("two runs share a directory")
	}
	lock.Close()
	again, err := openDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
}
