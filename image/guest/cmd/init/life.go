package main

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"
)

// live is the guest's life: heartbeats until a key, a shell until it ends.
func live(console *os.File, keys <-chan struct{}, next chan<- struct{}, off <-chan string) error {
	tick := time.NewTicker(time.Second)
	next <- struct{}{}
	for n := 1; ; {
		select {
		case <-tick.C:
			fmt.Fprintf(console, "cairn-demo-guest heartbeat n=%d\n", n)
			n++
		case <-keys:
			done := make(chan error, 1)
			go func() { done <- shell(console) }()
			select {
			case err := <-done:
				orphans()
				fmt.Fprintf(console, "cairn-demo-guest shell-ended status=%v\n", status(err))
			case why := <-off:
				return powerOff(console, why)
			}
			next <- struct{}{}
		case why := <-off:
			return powerOff(console, why)
		}
	}
}

// readKeys waits for one key per round; between rounds the shell reads.
func readKeys(console io.Reader, keys chan<- struct{}, next <-chan struct{}) {
	b := make([]byte, 64)
	for range next {
		if _, err := console.Read(b); err != nil {
			return
		}
		keys <- struct{}{}
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
