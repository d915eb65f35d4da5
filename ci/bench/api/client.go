package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"cairn/toolstack/client"
)

// encoding is one of the two ways to ask.
type encoding struct {
	name, path string
	body       func(method string, params ...string) string
	ok         []byte // what every good answer holds
}

var encodings = [...]encoding{
	{"JSON-RPC", "/jsonrpc", func(method string, params ...string) string {
		list, _ := json.Marshal(params) // strings cannot fail
		return fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":%q,"params":%s}`, method, list)
	}, []byte(`"result":`)},
	{"XML-RPC", "/RPC2", func(method string, params ...string) string {
		text := "<methodCall><methodName>" + method + "</methodName><params>"
		for _, p := range params {
			text += "<param><value>" + p + "</value></param>"
		}
		return text + "</params></methodCall>"
	}, []byte("<value>Success</value>")},
}

// caller is a session and connections that stay open.
type caller struct {
	addr, session string
	http          *http.Client
	api           *client.Client
	vms           []string
}

func login(ctx context.Context, addr string) (*caller, error) {
	api, err := client.Dial(ctx, client.Config{Addr: addr, Username: "root", Password: password, Originator: "bench-api"})
	if err != nil {
		return nil, err
	}
	c := &caller{addr: addr, session: api.Session(), api: api, http: &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, MaxIdleConnsPerHost: 2 * waiters, DisableCompression: true,
	}}}
	return c, api.Call(ctx, "VM.get_all", &c.vms)
}

// post sends a request and reads the whole answer; keep, when given, gets it.
func (c *caller) post(ctx context.Context, e encoding, body string, keep *bytes.Buffer) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+c.addr+e.path, bytes.NewReader([]byte(body)))
	if err != nil {
		return 0, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	var head prefix
	to := io.Writer(&head)
	if keep != nil {
		to = io.MultiWriter(&head, keep)
	}
	n, err := io.Copy(to, resp.Body)
	if err != nil {
		return n, err
	}
	if resp.StatusCode != http.StatusOK || !bytes.Contains(head.text, e.ok) {
		return n, fmt.Errorf("HTTP %s: %s", resp.Status, head.text)
	}
	return n, nil
}

// prefix keeps the beginning of what is written to it.
type prefix struct{ text []byte }

func (p *prefix) Write(b []byte) (int, error) {
	const enough = 300
	p.text = append(p.text, b[:min(len(b), max(0, enough-len(p.text)))]...)
	return len(b), nil
}

// lists asks for all VMs again and again, one after another.
func (c *caller) lists(ctx context.Context, e encoding, samples int) (l listing, err error) {
	body := e.body("VM.get_all_records", c.session)
	for i := range samples + 1 {
		begin := time.Now()
		if l.Bytes, err = c.post(ctx, e, body, nil); err != nil {
			return l, err
		}
		took := time.Since(begin)
		if i == 0 {
			l.First = took
			continue
		}
		l.Warm = append(l.Warm, took)
	}
	return l, nil
}

// load lets many clients ask for one VM's record after another and counts.
func (c *caller) load(ctx context.Context, e encoding, d time.Duration) (perSecond float64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var count atomic.Int64
	errs := make(chan error, clients)
	begin := time.Now()
	for i := range clients {
		go func() {
			for n := i; time.Since(begin) < d; n += clients {
				if _, err := c.post(ctx, e, e.body("VM.get_record", c.session, c.vms[n%len(c.vms)]), nil); err != nil {
					errs <- err
					return
				}
				count.Add(1)
			}
			errs <- nil
		}()
	}
	for range clients {
		err = errors.Join(err, <-errs)
	}
	return float64(count.Load()) / time.Since(begin).Seconds(), err
}

// settle is long enough for every waiter to wait again: there is nothing to see
// from outside when it does, and the batching of the change before is over.
const settle = 200 * time.Millisecond

// events changes one VM at a time while many clients wait for it, and times when
// each has heard of it.
func (c *caller) events(ctx context.Context, samples int) (fromRequest, fromAck series, err error) {
	token, err := c.wait(ctx, "", "0")
	if err != nil {
		return nil, nil, err
	}
	for i := range samples {
		var group sync.WaitGroup
		heard, errs := make([]time.Time, waiters), make([]error, waiters)
		tokens := make([]string, waiters)
		for w := range waiters {
			group.Go(func() {
				tokens[w], errs[w] = c.wait(ctx, token, "30")
				heard[w] = time.Now()
			})
		}
		time.Sleep(settle)
		asked := time.Now()
		err := c.api.Call(ctx, "VM.set_name_description", nil, c.vms[i%len(c.vms)], fmt.Sprintf("change %d", i))
		acknowledged := time.Now()
		group.Wait()
		if err := errors.Join(append(errs, err)...); err != nil {
			return nil, nil, err
		}
		for _, at := range heard {
			fromRequest = append(fromRequest, at.Sub(asked))
			fromAck = append(fromAck, at.Sub(acknowledged))
		}
		token = tokens[0]
	}
	return fromRequest, fromAck, nil
}

// wait is one event.from for VMs; it answers the next token.
func (c *caller) wait(ctx context.Context, token, seconds string) (string, error) {
	body := fmt.Sprintf(`{"jsonrpc":"2.0","id":1,"method":"event.from","params":[%q,["vm"],%q,%s]}`, c.session, token, seconds)
	var text bytes.Buffer
	if _, err := c.post(ctx, encodings[0], body, &text); err != nil {
		return "", err
	}
	var answer struct {
		Result struct {
			Token  string            `json:"token"`
			Events []json.RawMessage `json:"events"`
		} `json:"result"`
	}
	if err := json.Unmarshal(text.Bytes(), &answer); err != nil {
		return "", err
	}
	if len(answer.Result.Events) == 0 {
		return "", errors.New("no event came")
	}
	return answer.Result.Token, nil
}
