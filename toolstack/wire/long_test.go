package wire_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire"
	"cairn/toolstack/wire/wiretest"
)

// manyVMs is a server with n VMs.
func manyVMs(t testing.TB, n int) *wiretest.Server {
	return wiretest.New(t, func(_ *api.Registry, d *db.DB) {
		err := d.Update(t.Context(), func(tx *db.Tx) error {
			for i := range n {
				vm := api.NewVM()
				vm.NameLabel = fmt.Sprint("vm ", i)
				vm.OtherConfig = map[string]string{"a": "b", "folder": "/x/y"}
				db.Insert(tx, vm)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	})
}

// sink is a client that takes what it is given.
type sink struct {
	http.ResponseWriter
	header          http.Header
	largest, length int
}

func (s *sink) Header() http.Header { return s.header }
func (s *sink) WriteHeader(int)     {}

func (s *sink) Write(p []byte) (int, error) {
	s.largest = max(s.largest, len(p))
	s.length += len(p)
	return len(p), nil
}

// The records of 4,000 VMs are not gathered before they are sent: what an
// answer takes beside the records' own encoded form does not grow with it.
func TestMemoryOfALongAnswerIsBounded(t *testing.T) {
	s := manyVMs(t, 4000)
	const mostWritten, mostAllocated = 128 << 10, 1 << 20
	for name, call := range map[string]string{
		"/jsonrpc":        jsonCall("VM.get_all_records", `"`+s.Session+`"`),
		"/":               xmlCall("VM.get_all_records", xmlParam(s.Session)),
		"/jsonrpc?events": jsonCall("event.from", `"`+s.Session+`",["vm"],"",1.0`),
		"/?events": xmlCall("event.from", xmlParam(s.Session)+xmlParam("<array><data><value>vm</value></data></array>")+
			xmlParam("")+xmlParam("<double>1.0</double>")),
	} {
		var out *sink
		var allocated uint64
		for range 2 { // the first call encodes the records, which then keep that
			out = &sink{header: http.Header{}}
			req := httptest.NewRequest("POST", name, strings.NewReader(call))
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			s.Wire.ServeHTTP(out, req)
			runtime.ReadMemStats(&after)
			allocated = after.TotalAlloc - before.TotalAlloc
		}
		t.Logf("%s: %d KiB in pieces of at most %d KiB, %d KiB allocated", name, out.length>>10, out.largest>>10, allocated>>10)
		if out.length < 8<<20 || out.largest > mostWritten || allocated > mostAllocated {
			t.Errorf("%s: %d bytes in pieces of at most %d, %d allocated", name, out.length, out.largest, allocated)
		}
	}
}

// A long answer comes in chunks, is whole, and leaves the connection usable;
// to HTTP/1.0 it comes without chunks and ends with the connection.
func TestLongAnswersAreWhole(t *testing.T) {
	s := manyVMs(t, 300)
	conn, err := net.Dial("tcp", s.HTTP.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	r := bufio.NewReader(conn)
	call := jsonCall("VM.get_all_records", `"`+s.Session+`"`)
	for range 2 {
		io.WriteString(conn, post("/jsonrpc", call))
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		checkRecords(t, resp, 300)
		if resp.ContentLength != -1 || fmt.Sprint(resp.TransferEncoding) != "[chunked]" {
			t.Errorf("length %d, %v", resp.ContentLength, resp.TransferEncoding)
		}
	}
	io.WriteString(conn, strings.Replace(post("/jsonrpc", call), "HTTP/1.1", "HTTP/1.0", 1))
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkRecords(t, resp, 300)
	if resp.TransferEncoding != nil || !resp.Close {
		t.Errorf("HTTP/1.0: %v, closes %v", resp.TransferEncoding, resp.Close)
	}
}

func checkRecords(t *testing.T, resp *http.Response, n int) {
	t.Helper()
	defer resp.Body.Close()
	var answer struct {
		Result map[string]struct{ UUID string }
		ID     int
	}
	if err := json.NewDecoder(resp.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	io.Copy(io.Discard, resp.Body)
	seen := map[string]bool{}
	for _, r := range answer.Result {
		seen[r.UUID] = true
	}
	if len(seen) != n || answer.ID != 1 {
		t.Errorf("%d records", len(seen))
	}
}

// A client that does not read its answer is given up, and others are served.
func TestUnreadAnswerIsGivenUp(t *testing.T) {
	s := manyVMs(t, 3000) // more than the buffers of a connection hold
	s.Wire.PieceTimeout = 50 * time.Millisecond
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{}, 8)
	server := wire.NewHTTPServer(s.Wire, nil, journal.Discard())
	server.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateClosed {
			closed <- struct{}{}
		}
	}
	go server.Serve(l)
	defer server.Close()
	conn, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.(*net.TCPConn).SetReadBuffer(4096)
	io.WriteString(conn, post("/", xmlCall("VM.get_all_records", xmlParam(s.Session))))
	select {
	case <-closed:
	case <-time.After(20 * time.Second):
		t.Fatal("the server waits for ever")
	}
	s.Must(nil, "VM.get_all")
}
