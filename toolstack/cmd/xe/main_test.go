package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"
)

// rounds are more than what reacts to the first signal needs to be done.
const rounds = 100

// TestMain is the child of TestSecondTermination where that asks for it.
func TestMain(m *testing.M) {
	if os.Getenv("XE_TEST_CHILD") == "" {
		os.Exit(m.Run())
	}
	ctx, _ := interruptible(context.Background()) // to the end
	fmt.Println("ready")
	<-ctx.Done()
	fmt.Scanln()
	for range rounds {
		fmt.Println("cancelled")
		fmt.Scanln() // until the other has sent one more
	}
}

// TestSecondTermination: cancelling goes on when SIGTERM comes twice.
func TestSecondTermination(t *testing.T) {
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), "XE_TEST_CHILD=1")
	in, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for range rounds + 1 {
		lines.Scan()
		_ = child.Process.Signal(syscall.SIGTERM)
		_, _ = in.Write([]byte("\n"))
	}
	in.Close()
	if err := child.Wait(); err != nil {
		t.Error(err)
	}
}
