package mail

import (
	"bufio"
	"cmp"
	"errors"
	"net"
	"strings"
	"sync"
	"time"
)

// letter is what a server was given.
type letter struct {
	from string
	to   []string
	data string
}

// server is an SMTP server behind a network of pipes, in virtual time.
type server struct {
	letters chan letter
	dials   chan time.Time // each connection that was asked for

	mu      sync.Mutex
	refuse  map[string]string // answers by the command's first word, each given once
	always  map[string]string // those by all of a command, each time
	greet   string            // instead of success
	mute    bool              // takes connections and says nothing
	unknown bool              // does not exist
}

func newServer() *server {
	return &server{letters: make(chan letter, 1000), dials: make(chan time.Time, 1000), refuse: map[string]string{}, always: map[string]string{}}
}

// dial connects to it.
func (s *server) dial() (net.Conn, error) {
	s.dials <- time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.unknown {
		return nil, errors.New("connection refused")
	}
	near, far := net.Pipe()
	if !s.mute {
		go s.serve(far, cmp.Or(s.greet, "220 test"))
	}
	return near, nil
}

// set changes what the server does.
func (s *server) set(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
}

// refusal is what to answer to a command instead of success, if anything.
func (s *server) refusal(line string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	word, _, _ := strings.Cut(line, " ")
	if text := s.always[line]; text != "" {
		return text
	}
	text := s.refuse[word]
	delete(s.refuse, word)
	return text
}

func (s *server) serve(c net.Conn, greeting string) {
	defer c.Close()
	r := bufio.NewReader(c)
	say := func(text string) { _, _ = c.Write([]byte(text + "\r\n")) }
	say(greeting)
	var x letter
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		word, _, _ := strings.Cut(line, " ")
		if text := s.refusal(line); text != "" {
			say(text)
			continue
		}
		switch word {
		case "MAIL":
			x.from = strings.Trim(strings.TrimPrefix(line, "MAIL FROM:"), "<>")
		case "RCPT":
			x.to = append(x.to, strings.Trim(strings.TrimPrefix(line, "RCPT TO:"), "<>"))
		case "DATA":
			say("354 go on")
			for {
				line, err := r.ReadString('\n')
				if err != nil {
					return
				}
				if line == ".\r\n" {
					break
				}
				x.data += strings.TrimPrefix(line, ".")
			}
			s.letters <- x
			x = letter{}
		case "QUIT":
			say("221 bye")
			return
		}
		say("250 fine")
	}
}
