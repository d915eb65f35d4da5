// Package qga asks the QEMU guest agent inside a machine, by lines of JSON over a
// virtio-serial port that shows up here as a socket.
//
// The protocol has no framing to rely on: the port keeps what the guest's end has not
// read yet, bytes are lost when that end starts anew, and an answer may be to a question
// of a connection long gone. So a conversation begins with a handshake
// (guest-sync-delimited): a byte that JSON never contains makes each side drop what it
// has gathered, and a number nobody has used before tells the answer to this handshake
// from all others. After any failure but the agent's own refusal the connection is out
// of step for good and is given up; the next one begins with a handshake again.
//
// What comes in is a stranger's. A guest may send anything, any amount, or nothing: a
// question ends with its context, and no question takes in more than MaxAnswer bytes,
// whatever they are, nor a handshake, which keeps next to nothing of them. Nothing is
// read between questions, so a guest that talks by itself fills its own port and stops.
// Texts are cut and cleaned before they are handed out.
//
// A Client is one goroutine's: there is one question at a time.
package qga

import (
	"encoding/json"
	"errors"
	"fmt"
)

// Errors of questions. All but a Refusal leave the connection out of step.
var (
	// ErrSilent: no answer in time.
	ErrSilent = errors.New("the guest agent does not answer")
	// ErrGarbage: what came is no answer.
	ErrGarbage = errors.New("the guest agent answers nonsense")
	// ErrClosed: the port is gone, with its domain as a rule.
	ErrClosed = errors.New("the guest agent's port is closed")
)

// Refusal is the agent's own error.
type Refusal struct{ Class, Desc string }

func (r *Refusal) Error() string {
	return fmt.Sprintf("the guest agent refuses: %s: %s", r.Class, r.Desc)
}

// MaxAnswer bounds what one question takes in. The longest honest answer, of a guest
// with hundreds of file systems, has some hundred thousand bytes.
const MaxAnswer = 1 << 20

// sentinel begins the answer to a handshake, and makes the agent drop half a question.
// No UTF-8 text has this byte.
const sentinel = 0xff

// question is one line for the agent.
func question(command string, arguments any) ([]byte, error) {
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", command, err)
	}
	return append(line, '\n'), nil
}

// handshake is the line that asks for an answer of this number.
func handshake(id int64) ([]byte, error) {
	line, err := question("guest-sync-delimited", map[string]int64{"id": id})
	return append([]byte{sentinel}, line...), err
}

// message is a line that came, and whether the sentinel stood before it.
type message struct {
	text      []byte
	delimited bool
}

// splitter cuts what comes into lines. It keeps no more than limit bytes, and drops a
// line that is longer.
type splitter struct {
	message
	limit int
	long  bool // the line is
}

// maxHandshake is more than any answer to a handshake has: while nobody may be there,
// nothing longer is kept.
const maxHandshake = 256

// feed takes bytes up to the end of a line, and reports how many, and whether there was
// one. What stands before a sentinel is dropped.
func (s *splitter) feed(b []byte) (found message, n int, ok bool) {
	for i, c := range b {
		switch c {
		case sentinel:
			s.message, s.long = message{delimited: true}, false
		case '\n':
			found, ok = s.message, !s.long
			if s.message, s.long = (message{}), false; ok {
				return found, i + 1, true
			}
		default:
			if s.long = s.long || len(s.text) >= s.limit; s.long {
				s.text = nil
			} else {
				s.text = append(s.text, c)
			}
		}
	}
	return message{}, len(b), false
}

// answer reads one line.
func answer(text []byte) (json.RawMessage, error) {
	var a struct {
		Return json.RawMessage `json:"return"`
		Error  *struct {
			Class string `json:"class"`
			Desc  string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal(text, &a); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrGarbage, err)
	}
	switch {
	case a.Error != nil:
		return nil, &Refusal{clean(a.Error.Class), clean(a.Error.Desc)}
	case a.Return == nil:
		return nil, fmt.Errorf("%w: neither a result nor an error", ErrGarbage)
	default:
		return a.Return, nil
	}
}
