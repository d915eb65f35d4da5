package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"cairn/image/guest/agent"
)

// live is the guest's life: heartbeats until a line is typed, which is a command of
// a test's, or starts a shell.
func live(console *os.File, lines <-chan string, next chan<- struct{}, off <-chan string) error {
	tick := time.NewTicker(time.Second)
	next <- struct{}{}
	for n := 1; ; {
		select {
		case <-tick.C:
			fmt.Fprintf(console, "cairn-demo-guest heartbeat n=%d\n", n)
			n++
		case line := <-lines:
			done := make(chan struct{})
			go func() {
				defer close(done)
				obey(console, line)
			}()
			select {
			case <-done:
			case why := <-off:
				return powerOff(console, why)
			}
			next <- struct{}{}
		case why := <-off:
			return powerOff(console, why)
		}
	}
}

// obey runs a command, or a shell when the line is none.
func obey(console *os.File, line string) {
	if !errors.Is(agent.Run(console, line), agent.ErrUnknown) {
		return
	}
	err := shell(console)
	orphans()
	fmt.Fprintf(console, "cairn-demo-guest shell-ended status=%v\n", status(err))
}

// maxLine is what a terminal collects before Enter.
const maxLine = 4096

// readLines waits for one line per round; between rounds the shell reads.
func readLines(console io.Reader, lines chan<- string, next <-chan struct{}) {
	b := make([]byte, maxLine)
	for range next {
		n, err := console.Read(b)
		if err != nil {
			return
		}
		lines <- string(b[:n])
	}
}

// shell runs u-root's gosh on the console as its controlling terminal.
func shell(console *os.File) error {
	fmt.Fprintln(console, "cairn-demo-guest shell: `exit` brings the heartbeat back")
	cmd := exec.Command("/bin/sh")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = console, console, console
	cmd.Env = []string{"PATH=/bbin:/bin", "HOME=/", "TERM=vt100", "USER=root"}
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Setctty: true}
	return cmd.Run()
}

func status(err error) string {
	if err == nil {
		return "0"
	}
	return fmt.Sprintf("%q", err.Error())
}

// orphans collects what the shell left behind. It runs when there is no child
// left that exec.Cmd waits for, so it takes nobody's status away.
func orphans() {
	for {
		if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != nil || pid <= 0 {
			return
		}
	}
}

func powerOff(console io.Writer, why string) error {
	fmt.Fprintf(console, "cairn-demo-guest power-off reason=%s\n", why)
	unix.Sync()
	return unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}
