// Package qga is the guest's end of the QEMU guest agent's protocol: as much of it as
// the toolstack asks for, of the demo guest and in tests. It answers one question after
// another; what it knows and does is a System's.
package qga

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
)

// Version is what the agent calls itself.
const Version = "10.0.0"

// sentinel makes the agent forget half a question, and begins the answer to a handshake.
const sentinel = 0xff

// maxQuestion bounds a line.
const maxQuestion = 64 << 10

// System is the machine an agent speaks for. Results are encoded as JSON as they are.
type System interface {
	OS() map[string]string
	HostName() string
	Interfaces() []Interface
	Filesystems() []Filesystem
	// Freeze and Thaw report how many file systems that was.
	Freeze() (int, error)
	Thaw() (int, error)
	PowerOff(mode string)
}

// Interface is a network interface.
type Interface struct {
	Name      string    `json:"name"`
	MAC       string    `json:"hardware-address,omitempty"`
	Addresses []Address `json:"ip-addresses,omitempty"`
}

// Address of an interface; Type is ipv4 or ipv6.
type Address struct {
	Type    string `json:"ip-address-type"`
	Address string `json:"ip-address"`
	Prefix  int    `json:"prefix"`
}

// Filesystem is what is mounted.
type Filesystem struct {
	Name       string `json:"name"`
	Mountpoint string `json:"mountpoint"`
	Type       string `json:"type"`
	Used       uint64 `json:"used-bytes"`
	Total      uint64 `json:"total-bytes"`
	Disk       []any  `json:"disk"`
}

// Agent answers one question after another; its state outlives the connections it
// answers on.
type Agent struct {
	system System

	turn   chan struct{} // of capacity 1: a question is being answered
	frozen bool
}

// New returns an agent of a machine.
func New(s System) *Agent { return &Agent{system: s, turn: make(chan struct{}, 1)} }

// Serve answers what is asked on a port until it fails.
func (a *Agent) Serve(port io.ReadWriter) error {
	in := bufio.NewReader(port)
	var text []byte
	for {
		c, err := in.ReadByte()
		if err != nil {
			return err
		}
		switch {
		case c == sentinel:
			text = text[:0]
		case c != '\n':
			if text = append(text, c); len(text) > maxQuestion {
				text = text[:0]
			}
		default:
			reply := a.Answer(text)
			text = text[:0]
			if _, err := port.Write(reply); err != nil {
				return err
			}
		}
	}
}

// failure is an agent's own error.
type failure struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (f *failure) Error() string { return f.Desc }

// Answer obeys one line; the answer may be empty.
func (a *Agent) Answer(line []byte) []byte {
	a.turn <- struct{}{}
	defer func() { <-a.turn }()
	var q struct {
		Execute   string `json:"execute"`
		Arguments struct {
			ID   json.Number `json:"id"`
			Mode string      `json:"mode"`
		} `json:"arguments"`
	}
	if err := json.Unmarshal(line, &q); err != nil {
		return reply(nil, &failure{"GenericError", "Invalid JSON syntax"})
	}
	switch q.Execute {
	case "guest-sync-delimited":
		return append([]byte{sentinel}, reply(q.Arguments.ID, nil)...)
	case "guest-shutdown":
		if a.frozen {
			return reply(nil, disabled(q.Execute))
		}
		a.system.PowerOff(q.Arguments.Mode)
		return nil
	}
	result, err := a.ask(q.Execute)
	return reply(result, err)
}

func disabled(command string) *failure {
	return &failure{"CommandNotFound", "Command " + command + " has been disabled"}
}

// commands are all there are; true are those that a frozen guest obeys, too.
var commands = map[string]bool{
	"guest-sync-delimited": true, "guest-ping": true, "guest-info": true, "guest-fsfreeze-status": true, "guest-fsfreeze-thaw": true,
	"guest-fsfreeze-freeze": true, "guest-shutdown": false, "guest-get-osinfo": false, "guest-get-host-name": false,
	"guest-network-get-interfaces": false, "guest-get-fsinfo": false,
}

func (a *Agent) ask(command string) (any, error) {
	whileFrozen, known := commands[command]
	switch {
	case !known:
		return nil, &failure{"CommandNotFound", "The command " + command + " has not been found"}
	case a.frozen && !whileFrozen:
		return nil, disabled(command)
	}
	switch command {
	case "guest-info":
		return a.info(), nil
	case "guest-get-osinfo":
		return a.system.OS(), nil
	case "guest-get-host-name":
		return map[string]string{"host-name": a.system.HostName()}, nil
	case "guest-network-get-interfaces":
		return a.system.Interfaces(), nil
	case "guest-get-fsinfo":
		return a.system.Filesystems(), nil
	case "guest-fsfreeze-status":
		return map[bool]string{true: "frozen", false: "thawed"}[a.frozen], nil
	case "guest-fsfreeze-freeze":
		n, err := a.system.Freeze()
		a.frozen = a.frozen || err == nil
		return n, err
	case "guest-fsfreeze-thaw":
		if !a.frozen {
			return 0, nil
		}
		n, err := a.system.Thaw()
		a.frozen = err != nil
		return n, err
	default: // guest-ping
		return struct{}{}, nil
	}
}

func (a *Agent) info() any {
	type entry struct {
		Name    string `json:"name"`
		Enabled bool   `json:"enabled"`
		Answers bool   `json:"success-response"`
	}
	all := []entry{}
	for name, whileFrozen := range commands {
		all = append(all, entry{name, whileFrozen || !a.frozen, name != "guest-shutdown"})
	}
	return map[string]any{"version": Version, "supported_commands": all}
}

func reply(result any, err error) []byte {
	message := map[string]any{"return": result}
	if err != nil {
		f, ok := err.(*failure)
		if !ok {
			f = &failure{"GenericError", err.Error()}
		}
		message = map[string]any{"error": f}
	}
	line, err := json.Marshal(message)
	if err != nil {
		line = fmt.Appendf(nil, `{"error":{"class":"GenericError","desc":%q}}`, err.Error())
	}
	return append(line, '\n')
}
