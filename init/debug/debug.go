// Package debug is the lab's hand inside a host: it answers requests on a
// serial port, one JSON object per line, so that tests can kill a daemon or
// freeze PID 1 where there is no shell.
//
// PID 1 starts it only when the kernel's command line names a port
// (cairn.debug=ttyS1). The command line of an installed host is fixed inside
// its UKI, so only a lab that boots the kernel directly can ask for it.
//
// One request is served at a time, in order; nothing is shared.
package debug

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"cairn/init/hostd/client"
	"cairn/init/network/port"
)

// Request is one thing to do.
type Request struct {
	ID   int    `json:"id"`
	Verb string `json:"verb"` // ping, run, kill, read, write, mkdir, processes, files, rules, hostd
	// Args: run argv… · kill PID signal-number · read FILE · write FILE TEXT · mkdir DIR ·
	// files DIR… · hostd METHOD PATH BODY
	Args []string `json:"args,omitempty"`
}

// Answer is what came of a request. Error is empty when it was done.
type Answer struct {
	ID        int       `json:"id"`
	Error     string    `json:"error,omitempty"`
	Output    string    `json:"output,omitempty"`
	Status    int       `json:"status,omitempty"` // hostd's, of HTTP
	Processes []Process `json:"processes,omitempty"`
}

// maxRequest and maxOutput keep a request from growing the host it inspects.
const (
	maxRequest = 64 << 10
	maxOutput  = 256 << 10
	runLimit   = 60 * time.Second
)

// Main serves the terminal named by the last argument until it closes.
func Main(ctx context.Context) error {
	if len(os.Args) < 2 {
		return errors.New("debug: usage: debug TTY")
	}
	tty, err := openRaw(os.Args[len(os.Args)-1])
	if err != nil {
		return fmt.Errorf("debug: %w", err)
	}
	defer tty.Close()
	if _, err := daemon.SdNotify(true, daemon.SdNotifyReady); err != nil {
		return fmt.Errorf("debug: %w", err)
	}
	return Serve(ctx, tty)
}

// Ready is the number of the answer that comes unasked when the port has been
// opened: what was sent before is lost.
const Ready = 0

// Serve answers requests until the port ends.
func Serve(ctx context.Context, port io.ReadWriter) error {
	if err := send(port, Answer{ID: Ready}); err != nil {
		return err
	}
	s := bufio.NewScanner(port)
	s.Buffer(nil, maxRequest)
	for s.Scan() {
		if len(bytes.TrimSpace(s.Bytes())) == 0 {
			continue
		}
		if err := send(port, answer(ctx, s.Bytes())); err != nil {
			return err
		}
	}
	return s.Err()
}

func send(port io.Writer, a Answer) error {
	b, err := json.Marshal(a)
	if err != nil {
		return fmt.Errorf("debug: %w", err)
	}
	if _, err := port.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("debug: %w", err)
	}
	return nil
}

func answer(ctx context.Context, line []byte) Answer {
	var r Request
	if err := json.Unmarshal(line, &r); err != nil {
		return Answer{Error: err.Error()}
	}
	a := Answer{ID: r.ID}
	var err error
	switch {
	case r.Verb == "ping":
	case r.Verb == "processes":
		a.Processes, err = Processes("/proc")
	case r.Verb == "run" && len(r.Args) > 0:
		a.Output, err = run(ctx, r.Args)
	case r.Verb == "kill" && len(r.Args) == 2:
		err = kill(r.Args[0], r.Args[1])
	case r.Verb == "read" && len(r.Args) == 1:
		a.Output, err = read(r.Args[0])
	case r.Verb == "write" && len(r.Args) == 2:
		err = os.WriteFile(r.Args[0], []byte(r.Args[1]), 0o644)
	case r.Verb == "mkdir" && len(r.Args) == 1:
		err = os.MkdirAll(r.Args[0], 0o755)
	case r.Verb == "files" && len(r.Args) > 0:
		a.Output, err = Files(r.Args...)
	case r.Verb == "rules" && len(r.Args) == 0:
		a.Output, err = rules()
	case r.Verb == "hostd" && len(r.Args) == 3:
		a.Status, a.Output, err = askHostd(ctx, client.Socket, r.Args[0], r.Args[1], r.Args[2])
	default:
		err = fmt.Errorf("verb %q with %d arguments is not known", r.Verb, len(r.Args))
	}
	if err != nil {
		a.Error = err.Error()
	}
	return a
}

// rules are what the kernel holds for guests' ports, one a line.
func rules() (string, error) {
	all, err := port.NewGuard().Contents()
	return strings.Join(all, "\n"), err
}

func run(ctx context.Context, argv []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, runLimit)
	defer cancel()
	out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput()
	return clip(string(out)), err
}

func kill(pid, signal string) error {
	var p, s int
	if _, err := fmt.Sscan(pid+" "+signal, &p, &s); err != nil || p < 1 {
		return fmt.Errorf("kill %q %q: want a process and a signal number", pid, signal)
	}
	return syscall.Kill(p, syscall.Signal(s))
}

func read(name string) (string, error) {
	f, err := os.Open(name)
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxOutput))
	return string(b), err
}

func clip(s string) string {
	if len(s) > maxOutput {
		s = s[:maxOutput]
	}
	return strings.ToValidUTF8(s, "?")
}
