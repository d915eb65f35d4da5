package mail

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// who is a server's command that names one of two receivers.
func who(name string) string { return "RCPT TO:<" + name + "@example.org>" }

var two = map[string]string{destinationKey: "ops@example.org, night@example.org"}

// TestOneReceiverRefused: that a server refuses one keeps the others from nothing; the log
// has one line of it for each message, with its words, and counts.
func TestOneReceiverRefused(t *testing.T) {
	inBubble(t, two, func(b *bench) {
		begin := time.Now()
		b.server.always[who("ops")] = "550 5.1.1 no such mailbox"
		for n := range 2 {
			b.raise(1, fmt.Sprint("N", n), "")
			x, _, text := b.letter()
			if fmt.Sprint(x.to) != "[night@example.org]" || !strings.Contains(text, fmt.Sprint("Name: N", n)) {
				b.Errorf("%v: %s", x.to, text)
			}
			line := b.log.wait(b.T, "mail-refused")
			if !strings.Contains(line, fmt.Sprint("name=N", n)) || !strings.Contains(line, "to=[ops@example.org]") || !strings.Contains(line, "5.1.1 no such mailbox") || !strings.Contains(line, fmt.Sprint("refused=", n+1)) {
				b.Error(line)
			}
			b.log.wait(b.T, "mail-sent")
		}
		b.server.set(func() { b.server.always[who("night")] = "550 nor this" })
		b.raise(1, "NOBODY", "")
		if line := b.log.wait(b.T, "mail-lost"); !strings.Contains(line, "NOBODY") || !strings.Contains(line, "5.1.1 no such mailbox") {
			b.Error(line)
		}
		if n := strings.Count(b.log.text.String(), "no such mailbox"); n != 3 || time.Since(begin) != 0 || len(b.server.dials) != 3 {
			b.Errorf("%d lines, %d attempts in %s", n, len(b.server.dials), time.Since(begin))
		}
	})
}

// TestOneReceiverLater: nobody gets a message twice because another is to get it later,
// nor is a later message held up; what that one has not got after an hour is lost.
func TestOneReceiverLater(t *testing.T) {
	inBubble(t, two, func(b *bench) {
		begin := time.Now()
		b.server.always[who("ops")] = "452 mailbox full"
		b.raise(1, "A", "")
		b.raise(1, "B", "")
		for _, want := range []string{"A", "B"} {
			x, _, text := b.letter()
			if fmt.Sprint(x.to) != "[night@example.org]" || !strings.Contains(text, "Name: "+want) || time.Since(begin) != 0 {
				b.Errorf("after %s to %v: %s", time.Since(begin), x.to, text)
			}
		}
		for n, want := range []time.Duration{0, 30 * time.Second, 90 * time.Second, 210 * time.Second} {
			for range 2 {
				if at := <-b.server.dials; at.Sub(begin) != want {
					b.Errorf("attempt %d comes after %s, want %s", n, at.Sub(begin), want)
				}
			}
		}
		b.raise(1, "C", "")
		if x, _, _ := b.letter(); fmt.Sprint(x.to) != "[night@example.org]" || time.Since(begin) != 210*time.Second {
			b.Errorf("%v after %s", x.to, time.Since(begin))
		}
		b.server.set(func() { delete(b.server.always, who("ops")) })
		for _, want := range []string{"C", "A", "B"} {
			if x, _, text := b.letter(); fmt.Sprint(x.to) != "[ops@example.org]" || !strings.Contains(text, "Name: "+want) {
				b.Errorf("to %v: %s", x.to, text)
			}
		}
		b.server.set(func() { b.server.always[who("ops")] = "452 mailbox full" })
		begin = time.Now()
		b.raise(1, "LOST", "")
		line := b.log.wait(b.T, "mail-lost")
		if took := time.Since(begin); took < lifetime || took > lifetime+maxPause || !strings.Contains(line, "LOST") || !strings.Contains(line, "mailbox full") {
			b.Errorf("after %s: %s", took, line)
		}
		if n := strings.Count(b.log.text.String(), "mail-delayed"); n != 4 {
			b.Errorf("%d lines of four delayed messages", n)
		}
		b.letter()
		if synctest.Wait(); len(b.server.letters) != 0 {
			b.Error("somebody got one twice")
		}
	})
}

// TestUnwelcome: a server that has nothing to do with this host says nothing of a message,
// and is tried again.
func TestUnwelcome(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		begin := time.Now()
		b.server.greet = "554 go away"
		b.raise(1, "A", "")
		if line := b.log.wait(b.T, "mail-delayed"); !strings.Contains(line, "go away") {
			b.Error(line)
		}
		b.server.set(func() { b.server.greet = "" })
		if got := b.names(b.server, 1); got[0] != "A" || time.Since(begin) != firstPause {
			b.Errorf("%v after %s", got, time.Since(begin))
		}
	})
}
