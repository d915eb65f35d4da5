package wire_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"cairn/journal"
	"cairn/toolstack/session/identity"
	"cairn/toolstack/wire"
	"cairn/toolstack/wire/wiretest"
)

// secured serves the fixture over TLS and returns a function that connects.
func secured(t *testing.T, s *wiretest.Server) (dial func() net.Conn) {
	t.Helper()
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
	t.Cleanup(func() { server.Close() })
	return func() net.Conn {
		conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		return conn
	}
}

func post(path, body string, headers ...string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n%s\r\n%s", path, len(body), lines(headers), body)
}

// chunked is a POST whose body comes in pieces of the given size.
func chunked(path, body string, size int) string {
	var b strings.Builder
	fmt.Fprintf(&b, "POST %s HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n", path)
	for len(body) > 0 {
		n := min(size, len(body))
		fmt.Fprintf(&b, "%x\r\n%s\r\n", n, body[:n])
		body = body[n:]
	}
	return b.String() + "0\r\n\r\n"
}

func lines(headers []string) string {
	var b strings.Builder
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	return b.String()
}

func jsonCall(method, params string) string {
	return `{"jsonrpc":"2.0","method":"` + method + `","params":[` + params + `],"id":1}`
}

func xmlCall(method, params string) string {
	return `<?xml version="1.0"?><methodCall><methodName>` + method + `</methodName><params>` + params + `</params></methodCall>`
}

func xmlParam(value string) string { return "<param><value>" + value + "</value></param>" }

// Whatever a client sends, it gets the documented error, and the next request
// works: on the same connection, or on a new one where the rest of a body that
// nobody read is in the way (closes).
func TestNonsenseGetsItsErrorAndTheNextRequestWorks(t *testing.T) {
	s := fixture(t)
	dial := secured(t, s)
	session := `"` + s.Session + `"`
	xmlSession := xmlParam(s.Session)
	deep := func(open, close string) string { return strings.Repeat(open, 5000) + strings.Repeat(close, 5000) }
	huge := strings.Repeat("x", 300<<10)
	for _, c := range []struct {
		name, send string
		status     int
		want       string // in the body
		closes     bool
	}{
		{"too few", post("/jsonrpc", jsonCall("VM.start", session)), 200, `"MESSAGE_PARAMETER_COUNT_MISMATCH","data":["VM.start","4","1"]`, false},
		{"too many", post("/jsonrpc", jsonCall("VM.get_all", session+",1")), 200, `"data":["VM.get_all","1","2"]`, false},
		{"nothing at all", post("/jsonrpc", jsonCall("VM.get_all", "")), 200, `"data":["VM.get_all","1","0"]`, false},
		{"wrong type", post("/jsonrpc", jsonCall("VM.set_name_label", session+`,"OpaqueRef:vm",{}`)), 200, `"FIELD_TYPE_ERROR","data":["value"]`, false},
		{"wrong type, XML", post("/", xmlCall("VM.set_tags", xmlSession+xmlParam("OpaqueRef:vm")+xmlParam("a"))), 200, "FIELD_TYPE_ERROR", false},
		{"a number too large", post("/jsonrpc", jsonCall("VM.set_user_version", session+`,"OpaqueRef:vm",9223372036854775808`)), 200, `"FIELD_TYPE_ERROR"`, false},
		{"a session that is a struct", post("/jsonrpc", jsonCall("VM.get_all", "{}")), 200, `"SESSION_INVALID","data":["OpaqueRef:NULL"]`, false},
		{"wrong reference", post("/jsonrpc", jsonCall("VM.get_record", session+`,"OpaqueRef:x"`)), 200, `"HANDLE_INVALID","data":["VM","OpaqueRef:x"]`, false},
		{"reference of another class", post("/jsonrpc", jsonCall("console.get_record", session+`,"OpaqueRef:vm"`)), 200, `"HANDLE_INVALID","data":["console","OpaqueRef:vm"]`, false},
		{"unknown message", post("/jsonrpc", jsonCall("VM.fly", session)), 200, `"MESSAGE_METHOD_UNKNOWN"`, false},
		{"no message", post("/jsonrpc", jsonCall("", session)), 200, `"MESSAGE_METHOD_UNKNOWN"`, false},
		{"deep JSON", post("/jsonrpc", deep("[", "]")), 500, "<h1>500", false},
		{"deep XML", post("/", xmlCall("VM.get_all", deep("<param>", "</param>"))), 500, "<h1>500", false},
		{"XML cut short", post("/", `<?xml version="1.0"?><methodCall><methodName>VM.get`), 500, "<h1>500", false},
		{"JSON cut short", post("/jsonrpc", `{"method":"VM.get_all","params":[`), 500, "<h1>500", false},
		{"JSON sent as XML", post("/", jsonCall("VM.get_all", session)), 500, "<h1>500", false},
		{"XML sent as JSON", post("/jsonrpc", xmlCall("VM.get_all", xmlSession)), 500, "<h1>500", false},
		{"empty", post("/", ""), 500, "<h1>500", false},
		{"bad UTF-8 in XML", post("/", xmlCall("VM.get_by_name_label", xmlSession+xmlParam("\xc3("))), 500, "<h1>500", false},
		{"bad UTF-8 in JSON", post("/jsonrpc", jsonCall("VM.get_by_name_label", session+",\"\xc3(\"")), 500, "<h1>500", false},
		{"NUL bytes in XML", post("/", xmlCall("VM.get_by_name_label", xmlSession+xmlParam("a\x00"))), 500, "<h1>500", false},
		{"NUL bytes in JSON", post("/jsonrpc", "\x00\x00"), 500, "<h1>500", false},
		{"an escaped NUL", post("/jsonrpc", jsonCall("VM.set_name_label", session+`,"OpaqueRef:vm","\u0000"`)), 200, `"FIELD_TYPE_ERROR"`, false},
		{"entities", post("/", `<!DOCTYPE a [<!ENTITY b "c">]>`+xmlCall("VM.get_all", xmlSession)), 500, "<h1>500", false},
		{"wrong content type", post("/jsonrpc", jsonCall("VM.get_all", session), "Content-Type: image/png"), 200, `"result":["OpaqueRef:vm"]`, false},
		{"chunked", chunked("/jsonrpc", jsonCall("VM.get_all", session), 7), 200, `"result":["OpaqueRef:vm"]`, false},
		{"large by its length", post("/jsonrpc", huge+"y"), 413, "Request Entity Too Large", true},
		{"large by its chunks", chunked("/jsonrpc", huge+"y", 8000), 413, "Request Entity Too Large", true},
		{"as large as may be", post("/jsonrpc", jsonCall("VM.get_by_name_label", session+`,"`+huge[:len(huge)-300]+`"`)), 200, `"result":[]`, false},
		{"chunks that are none", "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n", 400, "Bad Request", true},
		{"no HTTP", "hello\r\n\r\n", 400, "Bad Request", true},
		{"lengths that differ", "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nabc", 400, "Bad Request", true},
		{"a header too large", "GET / HTTP/1.1\r\nHost: h\r\nX: " + huge + "\r\n\r\n", 431, "", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := dial()
			defer conn.Close()
			go io.WriteString(conn, c.send)
			r := bufio.NewReader(conn)
			status, body := readAnswer(t, r)
			if status != c.status || !strings.Contains(body, c.want) {
				t.Errorf("%d %.300q, want %d %q", status, body, c.status, c.want)
			}
			if c.closes {
				if _, err := r.ReadByte(); err == nil {
					t.Error("the connection goes on")
				}
				conn = dial()
				defer conn.Close()
				r = bufio.NewReader(conn)
			}
			io.WriteString(conn, post("/jsonrpc", jsonCall("VM.get_name_label", session+`,"OpaqueRef:vm"`)))
			if status, body := readAnswer(t, r); status != 200 || !strings.Contains(body, `"result":"one <&> \"two\""`) {
				t.Errorf("the next request: %d %s", status, body)
			}
		})
	}
}

func readAnswer(t *testing.T, r *bufio.Reader) (int, string) {
	t.Helper()
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// Requests sent without waiting for answers are answered in their order.
func TestPipelining(t *testing.T) {
	s := fixture(t)
	conn := secured(t, s)()
	defer conn.Close()
	var b bytes.Buffer
	const n = 50
	for i := range n {
		b.WriteString(post("/jsonrpc", fmt.Sprintf(`{"method":"VM.get_all","params":["%s"],"id":%d}`, s.Session, i)))
	}
	go conn.Write(b.Bytes())
	r := bufio.NewReader(conn)
	for i := range n {
		want := fmt.Sprintf(`{"result":["OpaqueRef:vm"],"error":null,"id":%d}`, i)
		if status, body := readAnswer(t, r); status != 200 || body != want {
			t.Fatalf("%d %s, want %s", status, body, want)
		}
	}
}

// A body that comes too slowly is not waited for, with either kind of length.
func TestSlowBodyIsGivenUp(t *testing.T) {
	s := fixture(t)
	s.Wire.BodyTimeout = 50 * time.Millisecond
	dial := secured(t, s)
	for _, head := range []string{"Content-Length: 100\r\n\r\nab", "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"} {
		conn := dial()
		defer conn.Close()
		io.WriteString(conn, "POST /jsonrpc HTTP/1.1\r\nHost: h\r\n"+head)
		r := bufio.NewReader(conn)
		if status, body := readAnswer(t, r); status != 408 {
			t.Errorf("%d %s", status, body)
		}
		if _, err := r.ReadByte(); err == nil {
			t.Error("the connection goes on")
		}
	}
	s.Must(nil, "VM.get_all")
}

// A client that stays silent after its message does not count as slow: a long
// poll lasts longer than a body may take.
func TestBodyTimeoutEndsWithTheBody(t *testing.T) {
	s := fixture(t)
	s.Wire.BodyTimeout = 50 * time.Millisecond
	conn := secured(t, s)()
	defer conn.Close()
	r := bufio.NewReader(conn)
	var batch struct{ Token string }
	s.Must(&batch, "event.from", []string{"vm"}, "", 0)
	begun := time.Now()
	io.WriteString(conn, post("/jsonrpc", jsonCall("event.from", `"`+s.Session+`",["vm"],"`+batch.Token+`",0.2`)))
	if status, body := readAnswer(t, r); status != 200 || !strings.Contains(body, `"events":[]`) || time.Since(begun) < 200*time.Millisecond {
		t.Errorf("after %v: %d %s", time.Since(begun), status, body)
	}
}
