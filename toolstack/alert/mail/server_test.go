package mail

import (
	"bufio"
	"net"
	"strings"
	"sync"
	"testing"
)

// letter is what a server was given.
type letter struct {
	from string
	to   []string
	data string
}

// server is an SMTP server on loopback.
type server struct {
	t       *testing.T
	l       net.Listener
	letters chan letter

	mu     sync.Mutex
	refuse map[string]string // answers by the command's first word, each given once
	mute   bool              // takes connections and says nothing
	open   []net.Conn
}

func newServer(t *testing.T) *server {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, l: l, letters: make(chan letter, 1000), refuse: map[string]string{}}
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		for _, c := range s.open {
			c.Close()
		}
	})
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.open = append(s.open, c)
			if !s.mute {
				go s.serve(c)
			}
			s.mu.Unlock()
		}
	}()
	return s
}

func (s *server) address() string { return s.l.Addr().String() }

// refusal is what to answer to a command instead of success, if anything.
func (s *server) refusal(word string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := s.refuse[word]
	delete(s.refuse, word)
	return text
}

func (s *server) serve(c net.Conn) {
	defer c.Close()
	r := bufio.NewReader(c)
	say := func(text string) { _, _ = c.Write([]byte(text + "\r\n")) }
	say("220 test")
	var x letter
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		line = strings.TrimSpace(line)
		word, _, _ := strings.Cut(line, " ")
		if text := s.refusal(word); text != "" {
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
