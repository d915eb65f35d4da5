package mail

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"mime"
	"mime/quotedprintable"
	"net"
	netmail "net/mail"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"cairn/toolstack/alert"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// lines is a log that goroutines write to.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
	c    chan string
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Write(p)
	l.c <- string(p)
	return len(p), nil
}

// wait returns the next line with a word.
func (l *lines) wait(t *testing.T, word string) string {
	t.Helper()
	for {
		select {
		case line := <-l.c:
			if strings.Contains(line, word) {
				return line
			}
		case <-time.After(10 * time.Hour):
			t.Fatalf("no line %s", word)
		}
	}
}

// bench is a pool with a host, messages and a mailer.
type bench struct {
	*testing.T
	db     *db.DB
	alerts *alert.Manager
	m      *Mailer
	server *server            // the one of the settings
	others map[string]*server // by address
	log    *lines
	host   string
	end    func() error
}

// hubAddress is the server of the settings.
const hubAddress = "mail.example.org:25"

// inBubble runs a test in virtual time.
func inBubble(t *testing.T, config map[string]string, f func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { f(newBench(t, config)) })
}

func newBench(t *testing.T, config map[string]string) *bench {
	d, err := db.Open(t.Context(), db.NewMemory(), db.Options{})
	must(t, err)
	t.Cleanup(func() { d.Close() })
	b := &bench{
		T: t, db: d, alerts: alert.New(d), server: newServer(), host: api.NewUUID(),
		log: &lines{c: make(chan string, 10_000)},
	}
	b.others = map[string]*server{hubAddress: b.server}
	must(t, d.Update(t.Context(), func(tx *db.Tx) error {
		p, h := api.NewPool(), api.NewHost()
		p.UUID, p.NameLabel, h.UUID, h.NameLabel = api.NewUUID(), "home", b.host, "node\r\nBcc: x@example.org"
		p.OtherConfig = map[string]string{destinationKey: "ops@example.org", hubKey: hubAddress}
		for k, v := range config {
			p.OtherConfig[k] = v
		}
		db.Insert(tx, p)
		db.Insert(tx, h)
		return nil
	}))
	b.m = New(Config{
		DB: d, Hostname: func() string { return "node.example.org\r\n" }, Log: slog.New(slog.NewTextHandler(b.log, nil)),
		Dial: func(_ context.Context, _, address string) (net.Conn, error) { return b.others[address].dial() },
	})
	b.alerts.Notify(b.m.Notify)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	b.end = func() error { cancel(); return <-done }
	go func() { done <- b.m.Run(ctx) }()
	t.Cleanup(func() { cancel(); synctest.Wait() })
	return b
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (b *bench) raise(priority int64, name, body string) {
	b.Helper()
	_, err := b.alerts.RaiseAt(b.Context(), name, priority, api.ClsHost, b.host, body)
	must(b, err)
}

func (b *bench) letter() (letter, *netmail.Message, string) {
	b.Helper()
	select {
	case x := <-b.server.letters:
		msg, err := netmail.ReadMessage(strings.NewReader(x.data))
		must(b, err)
		text, err := io.ReadAll(quotedprintable.NewReader(msg.Body))
		must(b, err)
		return x, msg, strings.ReplaceAll(string(text), "\r\n", "\n")
	case <-time.After(10 * time.Hour):
		b.Fatal("no mail")
		return letter{}, nil, ""
	}
}

const alarmBody = "value: 0.986414\nconfig:\n<variable>\n\t<name value=\"cpu_usage\"/>\n\t<alarm_trigger_level value=\"0.5\"/>\n</variable>\n"

// TestMail: what a person and a program find in a mail.
func TestMail(t *testing.T) {
	inBubble(t, map[string]string{destinationKey: "ops@example.org, Night Watch <night@example.org>"}, func(b *bench) {
		b.raise(3, "ALARM", alarmBody)
		x, msg, text := b.letter()
		if x.from != "noreply@node.example.org" || fmt.Sprint(x.to) != "[ops@example.org night@example.org]" {
			b.Errorf("envelope %+v", x)
		}
		subject, err := new(mime.WordDecoder).DecodeHeader(msg.Header.Get("Subject"))
		must(b, err)
		if subject != `[home] Cairn Alarm: cpu_usage on Host "node\r\nBcc: x@example.org"` || msg.Header.Get("Bcc") != "" || msg.Header.Get("To") != "ops@example.org, night@example.org" {
			b.Errorf("head %+v", msg.Header)
		}
		if date, err := msg.Header.Date(); err != nil || time.Since(date) > time.Minute {
			b.Errorf("date %v, %v", date, err)
		}
		for _, part := range []string{
			"was 0.986414 on average of a minute. The alarm is set for more than 0.5 over 1m0s.", "\nName: ALARM\n", "Priority: 3\n", "Class: Host\n", "Object UUID: " + b.host + "\n",
			"Object name: node  Bcc: x@example.org\n", "Timestamp: 20", "Message UUID: ", "Pool: home\n", "Body: value: 0.986414\nconfig:\n<variable>",
		} {
			if !strings.Contains(text, part) {
				b.Errorf("no %q in\n%s", part, text)
			}
		}
		b.raise(3, "ALARM", "a disk is full") // has no rule
		if _, msg, text = b.letter(); msg.Header.Get("Subject") != "[home] Cairn Message: Host "+b.host+" ALARM" || !strings.HasPrefix(text, "Name: ALARM\n") {
			b.Errorf("%+v\n%s", msg.Header, text)
		}
		b.raise(1, "HELLO", "one\r\n.\r\nMAIL FROM:<x@example.org>\nzwölf "+strings.Repeat("long ", 1000))
		_, msg, text = b.letter()
		if s := msg.Header.Get("Subject"); s != "[home] Cairn Message: Host "+b.host+" HELLO" || !strings.Contains(text, "\n.\nMAIL FROM:<x@example.org>\nzwölf long long") {
			b.Errorf("%s\n%s", s, text)
		}
		b.log.wait(b.T, "mail-sent")
	})
}

// TestPriorities: 1 is the highest; by default 3 is the least that is sent.
func TestPriorities(t *testing.T) {
	for _, tt := range []struct {
		least string
		want  string
	}{{"", "[1 2 3]"}, {"2", "[1 2]"}, {"5", "[1 2 3 4 5]"}, {"0", "[]"}} {
		inBubble(t, map[string]string{priorityKey: tt.least}, func(b *bench) {
			for p := range int64(5) {
				b.raise(p+1, fmt.Sprint("P", p+1), "")
			}
			got := []string{}
			for range strings.Count(tt.want, " ") + 1 {
				if tt.want == "[]" {
					break
				}
				_, _, text := b.letter()
				_, rest, _ := strings.Cut(text, "Priority: ")
				got = append(got, rest[:1])
			}
			if _ = b.end(); fmt.Sprint(got) != tt.want || len(b.server.letters) != 0 {
				b.Errorf("least %q: %v, want %s", tt.least, got, tt.want)
			}
		})
	}
}

// TestNobodyToSendTo: without a destination or a server nothing waits; settings that
// cannot be read are told of once.
func TestNobodyToSendTo(t *testing.T) {
	for _, tt := range []struct {
		key, value string
		told       int
	}{{destinationKey, "", 0}, {hubKey, "", 0}, {destinationKey, "nobody", 1}, {priorityKey, "high", 1}, {senderKey, "me", 1}} {
		inBubble(t, map[string]string{tt.key: tt.value}, func(b *bench) {
			b.raise(1, "A", "")
			b.raise(1, "B", "")
			if len(b.m.queue) != 0 || strings.Count(b.log.text.String(), "mail-settings") != tt.told {
				b.Errorf("%s=%s: %d wait, log:\n%s", tt.key, tt.value, len(b.m.queue), &b.log.text)
			}
		})
	}
}

// TestRefusals: what may work later is tried again, and holds no other up; what never will
// is not; the next message goes its way.
func TestRefusals(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		begin := time.Now()
		b.server.refuse["RCPT"] = "451 later"
		b.raise(1, "LATER", "")
		b.raise(1, "OTHER", "")
		for i, want := range []string{"OTHER", "LATER"} {
			if _, _, text := b.letter(); !strings.Contains(text, want) || time.Since(begin) != time.Duration(i)*firstPause {
				b.Errorf("%s after %s: %s", want, time.Since(begin), text)
			}
		}
		b.server.set(func() { b.server.refuse["MAIL"] = "550 never" })
		b.raise(1, "NEVER", "")
		if line := b.log.wait(b.T, "mail-lost"); !strings.Contains(line, "NEVER") || time.Since(begin) != firstPause {
			b.Errorf("line %s", line)
		}
		b.raise(1, "NEXT", "")
		if _, _, text := b.letter(); !strings.Contains(text, "NEXT") {
			b.Errorf("text %s", text)
		}
	})
}

func TestSettings(t *testing.T) {
	for text, want := range map[string]string{
		"": "", "mail.example.org": "mail.example.org:25", "mail:587": "mail:587", "192.0.2.1": "192.0.2.1:25", "2001:db8::1": "[2001:db8::1]:25", "[2001:db8::1]:26": "[2001:db8::1]:26", " a ": "a:25",
	} {
		if got := hub(text); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
	s, err := parseSettings(keysOf(map[string]string{senderKey: "Cairn <c@example.org>", destinationKey: "a@b"}))
	if err != nil || s.from != "c@example.org" || s.least != 3 {
		t.Errorf("%+v, %v", s, err)
	}
}

// TestSettingsRefused: the log's line names the key, what it is and what is wrong.
func TestSettingsRefused(t *testing.T) {
	for _, tt := range []struct{ key, value, want string }{
		{destinationKey, strings.Repeat("a@b,", 50) + "a@b", `mail-destination is "` + strings.Repeat("a@b,", 20) + `": 51 addresses are more than 50`},
		{destinationKey, "nobody", `mail-destination is "nobody": mail: missing '@' or angle-addr`},
		{senderKey, "me", `mail-sender is "me": mail: missing '@' or angle-addr`},
		{priorityKey, "high", `mail-min-priority is "high"`},
	} {
		if s, err := parseSettings(keysOf(map[string]string{tt.key: tt.value})); err == nil || err.Error() != tt.want || len(s.to) > 0 {
			t.Errorf("%s: %v, want %s", tt.key, err, tt.want)
		}
	}
	if s, err := parseSettings(keysOf(map[string]string{destinationKey: strings.Repeat("a@b,", 49) + "a@b"})); err != nil || len(s.to) != 50 {
		t.Errorf("%d get mail, %v", len(s.to), err)
	}
}
