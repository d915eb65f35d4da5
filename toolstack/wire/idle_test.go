//go:build !race

package wire_test // the race detector's own memory would be measured

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"cairn/journal"
	"cairn/toolstack/session/identity"
	"cairn/toolstack/wire"
	"cairn/toolstack/wire/wiretest"
)

// idleChild makes this test binary a server that ends with its input.
const idleChild = "CAIRN_TEST_IDLE_SERVER"

const (
	idleConnections = 2000
	idleBudget      = 100 << 20
)

// 2,000 connections that did a call and then stay idle cost the server's
// process less than 100 MiB.
func TestIdleConnectionsAreCheap(t *testing.T) {
	if os.Getenv(idleChild) != "" {
		serveIdle(t)
		return
	}
	raiseFileLimit(t)
	child := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestIdleConnectionsAreCheap$", "-test.v")
	child.Env = append(os.Environ(), idleChild+"=1")
	stdin, err := child.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := child.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	child.Stderr = os.Stderr
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()
	defer stdin.Close()
	address, session := readAddress(t, bufio.NewReader(stdout))
	before := residentBytes(t, child.Process.Pid)
	conns := openIdle(t, address, session)
	after := residentBytes(t, child.Process.Pid)
	for _, c := range conns {
		c.Close()
	}
	t.Logf("%d connections: %d MiB, from %d to %d", len(conns), (after-before)>>20, before>>20, after>>20)
	if after-before > idleBudget {
		t.Errorf("%d idle connections cost %d MiB", len(conns), (after-before)>>20)
	}
}

func raiseFileLimit(t *testing.T) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}

// serveIdle is the child.
func serveIdle(t *testing.T) {
	s := wiretest.New(t, nil)
	raiseFileLimit(t)
	cfg, _, err := identity.Load(t.TempDir(), identity.Options{Names: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := wire.NewHTTPServer(s.Wire, cfg, journal.Discard())
	go server.ServeTLS(l, "", "")
	defer server.Close()
	fmt.Printf("serving %s %s\n", l.Addr(), s.Session)
	bufio.NewReader(os.Stdin).ReadString('\n')
}

func readAddress(t *testing.T, r *bufio.Reader) (address, session string) {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if n, _ := fmt.Sscanf(line, "serving %s %s", &address, &session); n == 2 {
			return address, session
		}
	}
}

// openIdle opens connections, a few at a time, and does a call on each.
func openIdle(t *testing.T, address, session string) []net.Conn {
	t.Helper()
	cfg := &tls.Config{InsecureSkipVerify: true, CurvePreferences: []tls.CurveID{tls.X25519}, ClientSessionCache: tls.NewLRUClientSessionCache(4)}
	call := post("/jsonrpc", jsonCall("pool.get_all", `"`+session+`"`))
	conns := make([]net.Conn, idleConnections)
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < len(conns); i += 8 {
				c, err := tls.Dial("tcp", address, cfg)
				if err != nil {
					t.Error(err)
					return
				}
				conns[i] = c
				c.Write([]byte(call))
				if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "200") {
					t.Error(line, err)
					return
				}
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	return conns
}

func residentBytes(t *testing.T, pid int) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}
