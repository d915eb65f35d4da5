package xe

import (
	"context"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"time"

	"cairn/toolstack/client"
)

// watch runs a message as a task, shows how far it is, and cancels it when the
// user interrupts.
func (s *session) watch(ctx context.Context, method string, args []any) (json.RawMessage, error) {
	var task string
	if err := s.api.Call(ctx, "Async."+method, &task, args...); err != nil {
		return nil, err
	}
	result, err := s.await(ctx, task, method)
	if err != nil {
		return nil, err
	}
	return json.Marshal(valueText(result))
}

// pollSeconds is how long one wait for events lasts; a task may take any
// number of them.
const pollSeconds = 30.0

// cancelGrace bounds the wait for a task to end after it was told to.
const cancelGrace = 15 * time.Second

// await waits for a task to end and removes it.
func (s *session) await(ctx context.Context, task, title string) (string, error) {
	quiet := context.WithoutCancel(ctx)
	defer func() { _ = s.api.Call(quiet, "task.destroy", nil, task) }()
	defer s.endProgress()
	result, err := s.poll(ctx, task, title)
	if ctx.Err() == nil {
		return result, err
	}
	fmt.Fprintln(s.errOut, "\nxe: cancelling")
	if err := s.api.Call(quiet, "task.cancel", nil, task); err != nil {
		return "", fmt.Errorf("interrupted, and the task could not be cancelled: %w", err)
	}
	grace, stop := context.WithTimeout(quiet, cancelGrace)
	defer stop()
	result, err = s.poll(grace, task, title)
	if grace.Err() != nil {
		return "", errors.New("interrupted; the host is still at it")
	}
	return result, err
}

// batch is an answer of event.from.
type batch struct {
	Token  string `json:"token"`
	Events []struct {
		Operation string `json:"operation"`
		Ref       string `json:"ref"`
		Snapshot  values `json:"snapshot"`
	} `json:"events"`
}

// poll follows the events of a task until it has ended.
func (s *session) poll(ctx context.Context, task, title string) (string, error) {
	token := ""
	for {
		var b batch
		if err := s.api.Call(ctx, "event.from", &b, []string{"task/" + task}, token, pollSeconds); err != nil {
			return "", err
		}
		token = b.Token
		for _, e := range b.Events {
			if e.Ref != task {
				continue
			}
			if e.Operation == "del" {
				return "", errors.New("the task is gone, how it ended is not known")
			}
			if done, result, err := s.ended(task, e.Snapshot, title); done {
				return result, err
			}
		}
	}
}

// ended reads one state of a task.
func (s *session) ended(task string, v values, title string) (done bool, result string, err error) {
	switch v.text("status") {
	case "success":
		return true, v.text("result"), nil
	case "cancelled":
		return true, "", &client.Error{Code: "TASK_CANCELLED", Params: []string{task}}
	case "failure":
		e := &client.Error{Code: "INTERNAL_ERROR", Params: []string{"the task does not say why it failed"}}
		if info, _ := v["error_info"].([]any); len(info) > 0 {
			e.Code, e.Params = fmt.Sprint(info[0]), nil
			for _, p := range info[1:] {
				e.Params = append(e.Params, fmt.Sprint(p))
			}
		}
		return true, "", e
	}
	if n, ok := v["progress"].(json.Number); ok {
		fraction, _ := n.Float64()
		s.progress(title, fraction)
	}
	return false, "", nil
}

// barWidth is the length of a whole progress bar.
const barWidth = 40

// progress draws how far something is, on a terminal or if --progress asks.
func (s *session) progress(title string, fraction float64) {
	if !s.cfg.Terminal && !s.Params.True("progress") {
		return
	}
	fraction = min(max(fraction, 0), 1)
	n := int(fraction * barWidth)
	fmt.Fprintf(s.errOut, "\r%s [%s%s] %3d%%", title, strings.Repeat("#", n), strings.Repeat(".", barWidth-n), int(fraction*100))
	s.drawn = true
}

// endProgress takes the bar away from a terminal and ends its line elsewhere.
func (s *session) endProgress() {
	switch {
	case s.drawn && s.cfg.Terminal:
		fmt.Fprint(s.errOut, "\r\x1b[K")
	case s.drawn:
		fmt.Fprintln(s.errOut)
	}
	s.drawn = false
}

// valueText reads the result of a task, which is text of the XML encoding: the
// first scalar in it.
func valueText(result string) string {
	all := valueTexts(result)
	if len(all) == 0 {
		return ""
	}
	return all[0]
}

// valueTexts reads the scalars in the result of a task, in order.
func valueTexts(result string) []string {
	var all []string
	d := xml.NewDecoder(strings.NewReader(result))
	var text strings.Builder
	leaf := false
	for {
		t, err := d.Token()
		if err != nil {
			return all
		}
		switch t := t.(type) {
		case xml.StartElement:
			text.Reset()
			leaf = true
		case xml.CharData:
			text.Write(t)
		case xml.EndElement:
			if leaf && t.Name.Local != "array" && t.Name.Local != "data" {
				all = append(all, text.String())
			}
			leaf = false
		}
	}
}
