// Package notify is the receiving side of sd_notify(3): the message format and
// a server for one datagram socket that serves every service.
//
// Invariants:
//   - A message is believed only for the process the kernel names as its
//     sender (SCM_CREDENTIALS); what the message says about its sender is not.
//   - Descriptors that come with a message are closed when the receiver has
//     handled it, whatever the message says. That is all BARRIER=1 asks for,
//     and it leaves nothing for a service to leak into PID 1.
//   - No input makes Parse fail as a whole: a line that is not understood is
//     reported and the rest is used, because READY=1 beside a new key must
//     still count.
//
// A Server has one reading goroutine; its channel is the only way out.
package notify

import (
	"bytes"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// MaxSize is the longest message taken, as in systemd (PIPE_BUF).
const MaxSize = 4096

// Message is what a service said, reduced to what PID 1 acts on.
type Message struct {
	Ready     bool
	Reloading bool
	Stopping  bool
	Ping      bool          // WATCHDOG=1
	Trigger   bool          // WATCHDOG=trigger: the service asks to be treated as hung
	Watchdog  time.Duration // WATCHDOG_USEC; 0 is not said
	Extend    time.Duration // EXTEND_TIMEOUT_USEC; 0 is not said
	MainPID   int           // 0 is not said
	Status    string
	Barrier   bool
	// BurstReboot is X_CAIRN_BURST_REBOOT: "yes" or "no" to the reboot after a
	// burst of failures of a critical service. Empty is not said.
	BurstReboot string
}

// Parse reads newline separated assignments. Unknown keys are fine; the error
// names the first value that is not, and the message holds all the others.
func Parse(data []byte) (Message, error) {
	var m Message
	var first error
	for line := range bytes.Lines(data) {
		key, value, ok := strings.Cut(strings.TrimRight(string(line), "\n"), "=")
		if !ok {
			continue
		}
		if err := m.set(key, value); err != nil && first == nil {
			first = fmt.Errorf("notify message %s: %w", key, err)
		}
	}
	return m, first
}

func (m *Message) set(key, value string) (err error) {
	switch key {
	case "READY":
		m.Ready = value == "1"
	case "RELOADING":
		m.Reloading = value == "1"
	case "STOPPING":
		m.Stopping = value == "1"
	case "BARRIER":
		m.Barrier = value == "1"
	case "WATCHDOG":
		m.Ping, m.Trigger = value == "1", value == "trigger"
	case "WATCHDOG_USEC":
		m.Watchdog, err = microseconds(value)
	case "EXTEND_TIMEOUT_USEC":
		m.Extend, err = microseconds(value)
	case "MAINPID":
		m.MainPID, err = pid(value)
	case "STATUS":
		m.Status = strings.ToValidUTF8(value, "?")
	case "X_CAIRN_BURST_REBOOT":
		if value != "yes" && value != "no" {
			return fmt.Errorf("%q is neither yes nor no", value)
		}
		m.BurstReboot = value
	}
	return err
}

func microseconds(s string) (time.Duration, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil || n == 0 || n > math.MaxInt64/1000 {
		return 0, fmt.Errorf("%q is not a number of microseconds", s)
	}
	return time.Duration(n) * time.Microsecond, nil
}

func pid(s string) (int, error) {
	n, err := strconv.ParseInt(s, 10, 32)
	if err != nil || n < 2 {
		return 0, fmt.Errorf("%q is not a process id", s)
	}
	return int(n), nil
}
