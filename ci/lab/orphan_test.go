//go:build lab

package lab_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cairn/ci/lab"
	"cairn/image/debian"
)

// orphanMaker makes this test binary start a host, print its process and wait.
const orphanMaker = "CAIRN_LAB_ORPHAN"

func TestMain(m *testing.M) {
	if os.Getenv(orphanMaker) != "" {
		fmt.Println(startAndWait())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func startAndWait() error {
	ctx := context.Background()
	tools, err := debian.Open(ctx, debian.Config{})
	if err != nil {
		return err
	}
	h, err := lab.Start(ctx, lab.Config{Name: "orphan", Tools: tools, MemoryMiB: 64})
	if err != nil {
		return err
	}
	fmt.Println(h.PID())
	select {}
}

// TestNothingOutlivesItsProgram kills a program that has a host running, in
// the way that leaves it no time to clean up.
func TestNothingOutlivesItsProgram(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), orphanMaker+"=1", "TMPDIR="+t.TempDir())
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	if err != nil {
		t.Fatalf("the program said %q", line)
	}
	qemu, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(qemu)
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	ended := []unix.PollFd{{Fd: int32(qemu), Events: unix.POLLIN}}
	if n, err := unix.Poll(ended, int((10 * time.Second).Milliseconds())); n != 1 || err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		t.Errorf("qemu %d lives on (%d, %v)", pid, n, err)
	}
}
