package tool

import (
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMain lets the test binary be the programs that are run.
func TestMain(m *testing.M) {
	switch os.Getenv("CAIRN_TOOL_TEST") {
	case "":
		os.Exit(m.Run())
	case "talk":
		os.Stdout.WriteString(strings.Join(os.Args[1:], "|"))
		os.Stderr.WriteString("some warning\n")
	case "fail":
		os.Stdout.WriteString("partial")
		os.Stderr.WriteString("first line\nimage: No space left on device\n")
		os.Exit(3)
	case "hang":
		select {}
	case "tidy": // deaf to the first two, as it starts
		heard := make(chan os.Signal, 1)
		signal.Notify(heard, syscall.SIGTERM)
		out := os.NewFile(3, "out")
		out.WriteString("ready")
		for range 3 {
			<-heard
		}
		out.WriteString("tidied")
	}
}

func self(ctx context.Context, _ string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, os.Args[0], args...)
}

func run(t *testing.T, what string, c Command) ([]byte, error) {
	t.Helper()
	c.Name, c.Env = "program", append(c.Env, "CAIRN_TOOL_TEST="+what)
	return Linux{Make: self}.Run(t.Context(), c)
}

func TestRun(t *testing.T) {
	out, err := run(t, "talk", Command{Args: []string{"a b", "$c"}})
	if err != nil || string(out) != "a b|$c" {
		t.Errorf("%q, %v", out, err)
	}
	var streamed []byte
	out, err = run(t, "talk", Command{Args: []string{"x"}, Output: func(p []byte) { streamed = append(streamed, p...) }})
	if err != nil || len(out) != 0 || string(streamed) != "x" {
		t.Errorf("%q, %q, %v", out, streamed, err)
	}
}

func TestFailure(t *testing.T) {
	_, err := run(t, "fail", Command{})
	var f *Failure
	if !errors.As(err, &f) || f.Code != 3 || string(f.Output) != "partial" {
		t.Fatalf("%#v", err)
	}
	if err.Error() != "program: exit code 3: image: No space left on device" || !Says(err, "No space left") {
		t.Errorf("%v", err)
	}
	if code, ok := Code(err); !ok || code != 3 {
		t.Errorf("%d, %v", code, ok)
	}
	if _, ok := Code(errors.New("other")); ok {
		t.Error("another error has a code")
	}
}

func TestLimits(t *testing.T) {
	if _, err := run(t, "hang", Command{Limit: time.Millisecond}); err == nil || !strings.Contains(err.Error(), "took more than") {
		t.Errorf("limit: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Linux{Make: self}).Run(ctx, Command{Name: "program", Env: []string{"CAIRN_TOOL_TEST=hang"}}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if _, err := (Linux{}).Run(t.Context(), Command{Name: "none"}); err == nil {
		t.Error("a program that is not known has run")
	}
}

// TestGently: a program that is asked to end may put things in order, and is asked
// until it hears it.
func TestGently(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := (Linux{Make: self}).Run(ctx, Command{Name: "program", Env: []string{"CAIRN_TOOL_TEST=tidy"}, Gently: true, Files: []*os.File{w}})
		w.Close()
		ended <- err
	}()
	if _, err := io.ReadFull(r, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	cancel()
	if said, err := io.ReadAll(r); err != nil || string(said) != "tidied" {
		t.Errorf("%q, %v", said, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

func TestOutputIsBounded(t *testing.T) {
	b := bounded{max: 5}
	for range 3 {
		if n, err := b.Write([]byte("abc")); n != 3 || err != nil {
			t.Fatal(n, err)
		}
	}
	if b.String() != "abcab" {
		t.Errorf("%q", b.String())
	}
}
