package interpose

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
)

// HTTP stands before a daemon that speaks HTTP on a unix socket.
func HTTP(peer, path, target string, gate Gate) (*Proxy, error) {
	p, err := listen(path, target, gate)
	if err != nil {
		return nil, err
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", target)
	}
	// A question is asked once: with a connection of its own none is repeated.
	h := &httpProxy{peer: peer, gate: gate, to: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
	server := &http.Server{Handler: h, ConnState: func(c net.Conn, s http.ConnState) {
		switch s {
		case http.StateNew:
			p.hold(c)
		case http.StateClosed, http.StateHijacked:
			p.drop(c)
		}
	}}
	go func() {
		if err := server.Serve(p.l); !errors.Is(err, net.ErrClosed) {
			panic(err)
		}
	}()
	return p, nil
}

type httpProxy struct {
	peer string
	gate Gate
	to   http.RoundTripper
}

// ServeHTTP hands one question on. Where there is no answer the asker's connection
// ends, as it would without anybody in between.
func (h *httpProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	step := Step{h.peer, verb(r.Method, r.URL.Path)}
	if !h.gate(step, Asked) || !h.gate(step, Handed) {
		panic(http.ErrAbortHandler)
	}
	out := r.Clone(r.Context())
	out.RequestURI, out.URL.Scheme, out.URL.Host = "", "http", h.peer
	resp, err := h.to.RoundTrip(out)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !h.gate(step, Answered) {
		panic(http.ErrAbortHandler)
	}
	for key, values := range resp.Header {
		w.Header()[key] = values
	}
	w.WriteHeader(resp.StatusCode)
	_, _ = w.Write(body)
}

// verb is a method and the nouns of a path without the names in between: "POST
// repositories volumes activate".
func verb(method, path string) string {
	words := []string{method}
	for i, w := range strings.Split(strings.Trim(path, "/"), "/") {
		if i%2 == 1 || i == 0 && !isVersion(w) { // nouns and names alternate behind the version
			words = append(words, w)
		}
	}
	return strings.Join(words, " ")
}

func isVersion(w string) bool { return strings.HasPrefix(w, "v") && len(w) < 4 }
