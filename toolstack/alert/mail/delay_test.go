package mail

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// set writes a key of the pool's other_config.
func (b *bench) set(key, value string) {
	b.Helper()
	must(b, b.db.Update(b.Context(), func(tx *db.Tx) error {
		for ref := range db.All[api.Pool](tx) {
			p, err := db.Edit(tx, ref)
			if err != nil {
				return err
			}
			p.OtherConfig[key] = value
		}
		return nil
	}))
}

// names are those of the messages that a server gets, so many of them.
func (b *bench) names(s *server, n int) (names []string) {
	b.Helper()
	for range n {
		select {
		case x := <-s.letters:
			_, rest, _ := strings.Cut(x.data, "Name: ")
			name, _, _ := strings.Cut(rest, "\r\n")
			names = append(names, name)
		case <-time.After(10 * time.Hour):
			b.Fatalf("%v and no more", names)
		}
	}
	return names
}

// TestOtherServer: while a server hangs, or the queue waits because one failed, other
// settings are tried at once, and all that waits goes out.
func TestOtherServer(t *testing.T) {
	for name, wait := range map[string]time.Duration{
		"while it hangs": 10 * time.Second, "in the first pause": sendLimit + 10*time.Second, "much later": 20 * time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, nil, func(b *bench) {
				b.server.mute = true
				good := newServer()
				b.others["192.0.2.9:25"] = good
				begin := time.Now()
				for _, name := range []string{"A", "B", "C"} {
					b.raise(1, name, "")
				}
				time.Sleep(wait)
				b.set("colour", "red") // is none of the mail's settings
				if time.Sleep(time.Second); len(good.dials) > 0 {
					b.Error("the other server is asked before there are other settings")
				}
				b.set(hubKey, "192.0.2.9")
				if got := b.names(good, 3); fmt.Sprint(got) != "[A B C]" || time.Since(begin) != wait+time.Second {
					b.Errorf("%v after %s", got, time.Since(begin))
				}
				if n := strings.Count(b.log.text.String(), "mail-delayed"); n > 1 {
					b.Errorf("%d lines of a server that fails", n)
				}
			})
		})
	}
}

// TestQueueWaits: of a server that fails, the queue as a whole waits, ever longer, and
// goes out as soon as it works again.
func TestQueueWaits(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.server.unknown = true
		for n := range 20 {
			b.raise(1, fmt.Sprint("N", n), "")
		}
		last := time.Now()
		for n, want := range []time.Duration{0, 30 * time.Second, time.Minute, 2 * time.Minute, 4 * time.Minute, 5 * time.Minute, 5 * time.Minute} {
			at := <-b.server.dials
			if at.Sub(last) != want {
				b.Errorf("attempt %d comes after %s, want %s", n, at.Sub(last), want)
			}
			last = at
		}
		b.server.set(func() { b.server.unknown = false })
		if got := b.names(b.server, 20); got[0] != "N0" || got[19] != "N19" || time.Since(last) != maxPause {
			b.Errorf("%v after %s", got, time.Since(last))
		}
		b.server.set(func() { b.server.unknown = true })
		b.raise(1, "AGAIN", "")
		for range 21 {
			last = <-b.server.dials
		}
		if at := <-b.server.dials; at.Sub(last) != firstPause {
			b.Errorf("after a success the first pause is %s", at.Sub(last))
		}
	})
}

// TestLost: a message that cannot be sent for an hour is lost, with a line.
func TestLost(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.server.unknown = true
		begin := time.Now()
		b.raise(1, "LOST", "")
		time.Sleep(lifetime / 2)
		b.raise(1, "KEPT", "")
		line := b.log.wait(b.T, "mail-lost")
		if took := time.Since(begin); !strings.Contains(line, "LOST") || took < lifetime || took > lifetime+maxPause {
			b.Errorf("after %s: %s", took, line)
		}
		b.server.set(func() { b.server.unknown = false })
		if got := b.names(b.server, 1); got[0] != "KEPT" {
			b.Errorf("got %v", got)
		}
	})
}

// TestHangingServer: whoever raises messages does not notice; few of them wait, and the
// end comes at once.
func TestHangingServer(t *testing.T) {
	inBubble(t, nil, func(b *bench) {
		b.server.mute = true
		begin := time.Now()
		for n := range 3 * maxQueue {
			b.m.Notify(&api.Message{UUID: api.NewUUID(), Priority: 1, Name: fmt.Sprint("N", n), Cls: api.ClsHost, ObjUUID: b.host})
		}
		b.log.wait(b.T, "mail-dropped")
		b.m.mu.Lock()
		n, last := len(b.m.queue), b.m.queue[len(b.m.queue)-1].Name
		b.m.mu.Unlock()
		if n > maxQueue || last != fmt.Sprint("N", 3*maxQueue-1) {
			b.Errorf("%d wait, the last is %s", n, last)
		}
		if err := b.end(); err != context.Canceled || time.Since(begin) != 0 {
			b.Errorf("%v after %s", err, time.Since(begin))
		}
	})
}
