package mail

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/smtp"
	"net/textproto"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/metrics/perfmon"
)

// answer is what a server says of a message.
type answer struct {
	later   error    // the first that it wants to hear of later
	never   error    // the first that it refuses for good
	refused []string // who will not get it therefore
}

// takes reports whether an error is a server's word on what it was asked, and if so takes
// it down as that on some of those who are to get the message.
func (a *answer) takes(err error, x *queued, hub string, to ...string) bool {
	var said *textproto.Error
	switch {
	case !errors.As(err, &said):
		return false
	case said.Code < 500:
		a.later = cmp.Or(a.later, err)
		return true
	}
	a.never = cmp.Or(a.never, err)
	a.refused = append(a.refused, to...)
	for _, one := range to {
		x.never[one] = hub
	}
	return true
}

// send is one attempt. Errors are those of the way to the server, and what that says
// before it is asked to take this message.
func (m *Mailer) send(ctx context.Context, s settings, x *queued) (a answer, err error) {
	to := x.left(s)
	if len(to) == 0 {
		return a, nil
	}
	conn, done, err := m.dial(ctx, s.hub)
	if err != nil {
		return a, err
	}
	defer done()
	c, err := m.greet(conn, s.hub)
	if err != nil {
		return a, err
	}
	if s.from == "" {
		s.from = "noreply@" + m.hostname()
	}
	if err := c.Mail(s.from); err != nil {
		if a.takes(err, x, s.hub, to...) {
			return a, nil
		}
		return a, err
	}
	taken, err := a.offer(c, x, s.hub, to)
	if err == nil && len(taken) > 0 {
		err = hand(c, m.text(s, x.Message))
		if a.takes(err, x, s.hub, taken...) {
			return a, nil
		}
	}
	if err != nil {
		return a, err
	}
	for _, one := range taken {
		x.had[one] = true
	}
	_ = c.Quit() // all is said
	return a, nil
}

// offer names those who are to get a message, and returns for whom the server takes it.
func (a *answer) offer(c *smtp.Client, x *queued, hub string, to []string) (taken []string, err error) {
	for _, one := range to {
		switch err := c.Rcpt(one); {
		case err == nil:
			taken = append(taken, one)
		case !a.takes(err, x, hub, one):
			return nil, err
		}
	}
	return taken, nil
}

// greet begins to speak with a server.
func (m *Mailer) greet(conn net.Conn, hub string) (*smtp.Client, error) {
	host, _, _ := net.SplitHostPort(hub) // it was joined or split before
	c, err := smtp.NewClient(conn, host)
	if err != nil {
		return nil, err
	}
	if err := c.Hello(m.hostname()); err != nil {
		return nil, err
	}
	if ok, _ := c.Extension("STARTTLS"); ok {
		// Against who listens, not against who answers: relays have certificates that
		// nobody vouches for, and without TLS nothing would be checked either.
		err = c.StartTLS(&tls.Config{ServerName: host, InsecureSkipVerify: true})
	}
	return c, err
}

// hand gives the server the text of a mail.
func hand(c *smtp.Client, text []byte) error {
	w, err := c.Data()
	if err != nil {
		return err
	}
	if _, err := w.Write(text); err != nil {
		return err
	}
	return w.Close()
}

// hostname is what may stand in an address.
func (m *Mailer) hostname() string {
	name := strings.Map(func(c rune) rune {
		if c == '-' || c == '.' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
			return c
		}
		return -1
	}, m.cfg.Hostname())
	if name == "" {
		return "localhost"
	}
	return name
}

// text is the mail.
func (m *Mailer) text(s settings, x *api.Message) []byte {
	var b bytes.Buffer
	about := describe(m.cfg.DB.Snapshot(), x)
	fmt.Fprintf(&b, "Date: %s\r\n", x.Timestamp.UTC().Format(time.RFC1123Z))
	fmt.Fprintf(&b, "From: %s\r\nTo: %s\r\n", s.from, strings.Join(s.to, ", "))
	fmt.Fprintf(&b, "Subject: %s\r\n", mime.QEncoding.Encode("utf-8", oneLine("["+about.pool+"] "+about.subject)))
	fmt.Fprintf(&b, "Message-ID: <%s@%s>\r\n", x.UUID, m.hostname())
	b.WriteString("Auto-Submitted: auto-generated\r\nMIME-Version: 1.0\r\n")
	b.WriteString("Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
	q := quotedprintable.NewWriter(&b)
	if about.sentence != "" {
		fmt.Fprintf(q, "%s\n\n", about.sentence)
	}
	fmt.Fprintf(q, "Name: %s\nPriority: %d\nClass: %s\nObject UUID: %s\nObject name: %s\nTimestamp: %s\nMessage UUID: %s\nPool: %s\nBody: %s\n",
		oneLine(x.Name), x.Priority, x.Cls, oneLine(x.ObjUUID), oneLine(about.object), x.Timestamp.UTC().Format(api.TimeLayout), x.UUID, oneLine(about.pool), x.Body)
	_ = q.Close() // a Buffer takes all
	return b.Bytes()
}

// oneLine keeps what others wrote from being more than a line.
func oneLine(s string) string {
	return strings.Map(func(c rune) rune {
		if c < ' ' || c == 0x7f {
			return ' '
		}
		return c
	}, s)
}

// description is a message for people.
type description struct {
	pool, object, subject string
	sentence              string // of alarms
}

func describe(s *db.Snapshot, x *api.Message) description {
	d := description{object: db.NameOf(s, api.FindClass(string(x.Cls)), x.ObjUUID)}
	for _, p := range db.All[api.Pool](s) {
		if d.pool = p.NameLabel; d.pool == "" {
			h, err := db.Get(s, p.Master)
			if err == nil {
				d.pool = h.NameLabel
			}
		}
	}
	d.subject = fmt.Sprintf("Cairn Message: %s %s %s", x.Cls, x.ObjUUID, x.Name)
	r, value, err := perfmon.ReadBody(x.Body)
	if err != nil || x.Name != perfmon.Alarm {
		return d
	}
	beyond := "more"
	if r.Low {
		beyond = "less"
	}
	d.subject = fmt.Sprintf("Cairn Alarm: %s on %s %q", r.Name, x.Cls, d.object)
	d.sentence = fmt.Sprintf("%s on %s %q was %g on average of a minute. The alarm is set for %s than %g over %s.", r.Name, x.Cls, d.object, value, beyond, r.Level, r.Period)
	return d
}
