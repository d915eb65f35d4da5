package main

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// begun waits until the API is announced and the first look at figures is over.
func (d *instance) begun() (address string) {
	d.t.Helper()
	for looked := false; address == "" || !looked; {
		select {
		case line := <-d.log.lines:
			if _, rest, ok := strings.Cut(line, " api-ready addr="); ok {
				address = strings.Fields(rest)[0]
			}
			looked = looked || strings.Contains(line, " metrics-begun ")
		case err := <-d.done:
			d.t.Fatalf("toolstackd ended: %v", err)
		case <-time.After(20 * time.Second):
			d.t.Fatal("no figures")
		}
	}
	return address
}

// TestMetricsCommands: the host's figures with xe and for scrapers; a stop keeps them.
func TestMetricsCommands(t *testing.T) {
	d := newInstance(t, "memory")
	address := d.begun()
	c := newCommandLine(t, address)
	if list := c.xe("host-data-source-list"); !strings.Contains(list, "memory_total_kib") || !strings.Contains(list, "cpu_avg") {
		t.Errorf("sources: %s", list)
	}
	if total := c.xe("host-data-source-query", "data-source=memory_total_kib"); total == "" || strings.HasPrefix(total, "0") {
		t.Errorf("memory_total_kib is %q", total)
	}
	c.xe("host-data-source-forget", "data-source=loadavg")
	c.xe("host-data-source-record", "data-source=loadavg")
	if _, _, errOut := c.try("host-data-source-query", "data-source=nothing"); !strings.Contains(errOut, "INVALID_VALUE") {
		t.Errorf("an unknown source: %s", errOut)
	}
	if text := d.fetch(address, "/metrics"); !strings.Contains(text, "\ncairn_host_memory_bytes{host=") {
		t.Errorf("for scrapers: %.300s", text)
	}
	if text := d.fetch(address, "/rrd_updates?start=0&host=true&json=true"); !json.Valid([]byte(text)) || !strings.Contains(text, ":cpu_avg") {
		t.Errorf("updates: %.300s", text)
	}
	d.stop()
	if kept, err := os.ReadDir(filepath.Join(d.cfg.state, "metrics")); err != nil || len(kept) == 0 {
		t.Errorf("kept: %v, %v", kept, err)
	}
}

// fetch reads a document as root.
func (d *instance) fetch(address, path string) string {
	d.t.Helper()
	r, err := http.NewRequestWithContext(context.Background(), "GET", "https://"+address+path, nil)
	d.must(err)
	r.SetBasicAuth("root", password)
	resp, err := insecure().Do(r)
	d.must(err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	d.must(err)
	if resp.StatusCode != http.StatusOK {
		d.t.Errorf("%s: %s", path, resp.Status)
	}
	return string(text)
}

// TestMailOfMessages: a message that a client makes reaches the server the pool names.
func TestMailOfMessages(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := newInstance(t, "memory")
	c := newCommandLine(t, d.address())
	c.xe("pool-param-set", "uuid="+c.xe("pool-list", "--minimal"), "other-config:mail-destination=ops@example.org", "other-config:ssmtp-mailhub="+l.Addr().String())
	c.xe("message-create", "name=HELLO", "priority=1", "body=text", "host-uuid="+c.xe("host-list", "--minimal"))
	d.must(l.(*net.TCPListener).SetDeadline(time.Now().Add(20 * time.Second)))
	conn, err := l.Accept()
	d.must(err)
	defer conn.Close()
	_, err = io.WriteString(conn, "220 test\r\n")
	d.must(err)
	hello := make([]byte, 5)
	if _, err := io.ReadFull(conn, hello); err != nil || string(hello) != "EHLO " {
		t.Errorf("it says %q, %v", hello, err)
	}
	d.stop()
}
