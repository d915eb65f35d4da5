package notify

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestParse(t *testing.T) {
	tests := []struct {
		name, in string
		want     Message
		err      string
	}{
		{"ready", "READY=1", Message{Ready: true}, ""},
		{"ready no", "READY=0", Message{}, ""},
		{"several", "READY=1\nSTATUS=up and well\nMAINPID=42\n", Message{Ready: true, Status: "up and well", MainPID: 42}, ""},
		{"ping", "WATCHDOG=1", Message{Ping: true}, ""},
		{"trigger", "WATCHDOG=trigger", Message{Trigger: true}, ""},
		{"watchdog time", "WATCHDOG_USEC=2000000", Message{Watchdog: 2 * time.Second}, ""},
		{"extend", "EXTEND_TIMEOUT_USEC=1500000", Message{Extend: 1500 * time.Millisecond}, ""},
		{"stopping", "STOPPING=1", Message{Stopping: true}, ""},
		{"reloading", "RELOADING=1\nMONOTONIC_USEC=1", Message{Reloading: true}, ""},
		{"barrier", "BARRIER=1", Message{Barrier: true}, ""},
		{"burst", "X_CAIRN_BURST_REBOOT=no", Message{BurstReboot: "no"}, ""},
		{"unknown key", "FDSTORE=1\nno assignment\nREADY=1", Message{Ready: true}, ""},
		{"bad value beside a good one", "WATCHDOG_USEC=soon\nREADY=1", Message{Ready: true}, "WATCHDOG_USEC"},
		{"overflow", "EXTEND_TIMEOUT_USEC=18446744073709551615", Message{}, "not a number of microseconds"},
		{"pid 1", "MAINPID=1", Message{}, "not a process id"},
		{"negative pid", "MAINPID=-5", Message{}, "not a process id"},
		{"burst maybe", "X_CAIRN_BURST_REBOOT=maybe", Message{}, "neither yes nor no"},
		{"status is made text", "STATUS=\xff\xfe", Message{Status: "?"}, ""},
		{"empty", "", Message{}, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Parse([]byte(tt.in))
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if (err == nil) != (tt.err == "") || (err != nil && !strings.Contains(err.Error(), tt.err)) {
				t.Errorf("error %v, want %q", err, tt.err)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("READY=1\nWATCHDOG_USEC=5\nMAINPID=7\nEXTEND_TIMEOUT_USEC=1"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, _ := Parse(data)
		if m.Watchdog < 0 || m.Extend < 0 || m.MainPID < 0 || m.MainPID == 1 {
			t.Errorf("%q gives %+v", data, m)
		}
	})
}

func FuzzControl(f *testing.F) {
	f.Add(unix.UnixCredentials(&unix.Ucred{Pid: 3}))
	f.Fuzz(func(t *testing.T, oob []byte) {
		control(oob) // only reads; closing is up to the packet's owner
	})
}

func serve(t *testing.T) (*Server, *net.UnixConn) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "notify")
	s, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		s.Close()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return s, conn
}

func TestServerNamesTheSender(t *testing.T) {
	s, conn := serve(t)
	if _, err := conn.Write([]byte("READY=1\nMAINPID=99")); err != nil {
		t.Fatal(err)
	}
	p := <-s.Packets()
	defer p.Close()
	if p.PID != os.Getpid() || !p.Message.Ready || p.Message.MainPID != 99 {
		t.Errorf("got %+v", p)
	}
}

// sendRights is sendmsg(2): net refuses ancillary data on a connected datagram
// socket.
func sendRights(t *testing.T, conn *net.UnixConn, text string, fd int) {
	t.Helper()
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var sent error
	err = raw.Control(func(c uintptr) { sent = unix.Sendmsg(int(c), []byte(text), unix.UnixRights(fd), nil, 0) })
	if err := errors.Join(err, sent); err != nil {
		t.Fatal(err)
	}
}

func TestBarrierIsAnsweredByClose(t *testing.T) {
	s, conn := serve(t)
	var pipe [2]int
	if err := unix.Pipe2(pipe[:], unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	r := os.NewFile(uintptr(pipe[0]), "barrier")
	defer r.Close()
	sendRights(t, conn, "BARRIER=1", pipe[1])
	unix.Close(pipe[1])
	p := <-s.Packets()
	if !p.Message.Barrier || len(p.fds) != 1 {
		t.Fatalf("got %+v", p)
	}
	p.Close()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d, %v; want the end of the pipe", n, err)
	}
}

func TestTooLongIsDropped(t *testing.T) {
	s, conn := serve(t)
	if _, err := conn.Write([]byte("STATUS=" + strings.Repeat("x", MaxSize))); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write([]byte("READY=1")); err != nil {
		t.Fatal(err)
	}
	p := <-s.Packets()
	if !p.Message.Ready || s.Dropped() != 1 {
		t.Errorf("got %+v and %d dropped", p, s.Dropped())
	}
}
