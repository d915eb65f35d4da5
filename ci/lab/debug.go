package lab

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"cairn/init/debug"
)

// Debug asks the host's debug channel to do something; see package
// init/debug for the verbs. The host must have been started with
// Config.Debug and have its services up.
func (h *Host) Debug(ctx context.Context, verb string, args ...string) (debug.Answer, error) {
	h.debugMu.Lock()
	defer h.debugMu.Unlock()
	if h.second == nil {
		return debug.Answer{}, errors.New("lab: host was started without its debug channel")
	}
	_ = h.second.SetReadDeadline(time.Time{})
	h.debugID++
	b, err := json.Marshal(debug.Request{ID: h.debugID, Verb: verb, Args: args})
	if err != nil {
		return debug.Answer{}, err
	}
	stop := context.AfterFunc(ctx, func() { _ = h.second.SetReadDeadline(time.Now()) })
	defer stop()
	if _, err := h.second.Write(append(b, '\n')); err != nil {
		return debug.Answer{}, fmt.Errorf("%s: debug %s: %w", h.cfg.Name, verb, err)
	}
	a, err := h.debugAnswer()
	if err == nil && a.Error != "" {
		err = errors.New(a.Error)
	}
	if err != nil {
		return a, fmt.Errorf("%s: debug %s %s: %w", h.cfg.Name, verb, strings.Join(args, " "), errors.Join(err, ctx.Err()))
	}
	return a, nil
}

// debugAnswer skips what is no answer, such as noise from before the port was
// opened, and answers to requests that were given up.
func (h *Host) debugAnswer() (debug.Answer, error) {
	if h.debugIn == nil {
		h.debugIn = bufio.NewReader(h.second)
	}
	for {
		line, err := h.debugIn.ReadBytes('\n')
		if err != nil {
			return debug.Answer{}, err
		}
		var a debug.Answer
		if json.Unmarshal(line, &a) == nil && a.ID == h.debugID {
			return a, nil
		}
	}
}

// Process returns the process of the host whose program name is given; the
// oldest, if there are several.
func (h *Host) Process(ctx context.Context, name string) (debug.Process, error) {
	a, err := h.Debug(ctx, "processes")
	if err != nil {
		return debug.Process{}, err
	}
	for _, p := range a.Processes {
		if p.Name == name {
			return p, nil
		}
	}
	return debug.Process{}, fmt.Errorf("%s: no process %s among %d", h.cfg.Name, name, len(a.Processes))
}

// Kill sends SIGKILL to a process of the host, by program name.
func (h *Host) Kill(ctx context.Context, name string) (debug.Process, error) {
	p, err := h.Process(ctx, name)
	if err == nil {
		_, err = h.Debug(ctx, "kill", strconv.Itoa(p.PID), strconv.Itoa(int(syscall.SIGKILL)))
	}
	return p, err
}
