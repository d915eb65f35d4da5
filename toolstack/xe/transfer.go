package xe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"cairn/toolstack/client"
)

// transfer brings a file from the host or takes one there. The first argument
// is the query.
func (s *session) transfer(ctx context.Context, verb, path string, st step, args []any) error {
	query := url.Values{}
	if m, ok := args[0].(map[string]any); ok {
		for k, v := range m {
			query.Set(k, fmt.Sprint(v))
		}
	}
	var err error
	if verb == "GET" {
		err = s.fetch(ctx, path, query, strings.TrimPrefix(st.answer, "file:"))
	} else {
		err = s.bring(ctx, path, query, st)
	}
	return notBuilt(verb, path, err)
}

// notBuilt says of a stream the host does not know what it says of a message.
func notBuilt(verb, path string, err error) error {
	var status *client.StatusError
	if errors.As(err, &status) && (status.Code == http.StatusNotFound || status.Code == http.StatusMethodNotAllowed) {
		return &client.Error{Code: "NOT_IMPLEMENTED", Params: []string{verb + " " + path}}
	}
	return err
}

// fetch writes what the host sends into a new file, which only its owner can
// read. A file that is there is never overwritten.
func (s *session) fetch(ctx context.Context, path string, query url.Values, param string) error {
	_, name, err := s.parameter(param)
	if err != nil {
		return err
	}
	body, err := s.api.Get(ctx, path, query)
	if err != nil {
		return err
	}
	defer body.Close()
	if name == "" || name == "-" {
		_, err := io.Copy(s.out.w, body)
		return err
	}
	f, err := os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, body)
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	return nil
}

// bring sends a file. Where the answer is wanted, the transfer has a task that
// holds it.
func (s *session) bring(ctx context.Context, path string, query url.Values, st step) error {
	_, name, err := s.parameter(strings.TrimPrefix(st.args[len(st.args)-1], "file:"))
	if err != nil {
		return err
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	task := ""
	if st.answer != "" {
		if err := s.api.Call(ctx, "task.create", &task, "xe "+s.Command, ""); err != nil {
			return err
		}
		query.Set("task_id", task)
	}
	if err := s.api.Put(ctx, path, query, f, info.Size()); err != nil || task == "" {
		return err
	}
	result, err := s.await(ctx, task, s.Command)
	if err != nil {
		return err
	}
	_, class, _ := strings.Cut(st.answer, ":")
	return s.answerUUIDs(ctx, class, valueTexts(result)...)
}
