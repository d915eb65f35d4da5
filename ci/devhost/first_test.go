package devhost

import (
	"bytes"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestDeathsAreTold: of a daemon that ran and was not asked to end, and of no other.
func TestDeathsAreTold(t *testing.T) {
	const killed, three = syscall.WaitStatus(9), syscall.WaitStatus(3 << 8)
	for _, c := range []struct {
		name   string
		do     func(f *first) error
		status syscall.WaitStatus
		want   string
	}{
		{"it was killed", func(f *first) error { return f.watch("hostd", 70000) }, killed, "died hostd signal: killed\n"},
		{"it gave up", func(f *first) error { return f.watch("hostd", 70000) }, three, "died hostd exit status 3\n"},
		{"it starts still", func(*first) error { return nil }, three, ""},
		{"another child", func(f *first) error { return f.watch("hostd", 70000) }, 0, ""},
	} {
		var out bytes.Buffer
		f := newFirst(&out)
		exited := make(chan syscall.WaitStatus, 1)
		f.exits[70000], f.pids["hostd"] = exited, 70000
		if err := c.do(f); err != nil {
			t.Fatal(err)
		}
		pid := 70000
		if c.status == 0 {
			pid++
		}
		if f.ended(pid, c.status); out.String() != c.want {
			t.Errorf("%s: said %q, want %q", c.name, &out, c.want)
		}
		if pid == 70000 && <-exited != c.status {
			t.Errorf("%s: who waits hears nothing", c.name)
		}
		if f.ended(pid, c.status); out.String() != c.want {
			t.Errorf("%s: said %q at another's end", c.name, &out)
		}
	}
	if err := newFirst(nil).watch("hostd", 70000); err == nil {
		t.Error("a daemon that has ended is up")
	}
}

// TestHandedIsKept: what is started does not inherit the socket.
func TestHandedIsKept(t *testing.T) {
	var fds [2]int
	if err := unix.Pipe(fds[:]); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[1])
	f := handed(fds[0])
	defer f.Close()
	if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}
