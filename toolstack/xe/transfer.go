package xe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"strings"

	"cairn/toolstack/client"
	"cairn/toolstack/transfer/disk"
)

// transfer brings a file from the host or takes one there. The first argument
// is the query.
func (s *session) transfer(ctx context.Context, verb, path string, st step, args []any) error {
	query := queryOf(args[0])
	var err error
	if verb == "GET" {
		err = s.fetch(ctx, path, query, strings.TrimPrefix(st.answer, "file:"))
	} else {
		err = s.bring(ctx, path, query, st)
	}
	return streamError(verb, path, err)
}

// queryOf makes a query of a record. A map in it is one parameter for each key.
func queryOf(record any) url.Values {
	query := url.Values{}
	fields, _ := record.(map[string]any)
	for name, v := range fields {
		keyed, ok := v.(map[string]string)
		for key, text := range keyed {
			query.Set(name+":"+key, text)
		}
		if !ok {
			query.Set(name, fmt.Sprint(v))
		}
	}
	return query
}

// answered is an error of the API as a stream spells it.
var answered = regexp.MustCompile(`^([A-Z][A-Z0-9_]{3,})(?: \[(.*)\])?$`)

// streamError says of a stream that was refused what is said of a message, and the
// same where the host does not know the stream.
func streamError(verb, path string, err error) error {
	var status *client.StatusError
	if !errors.As(err, &status) {
		return err
	}
	if m := answered.FindStringSubmatch(status.Text); m != nil {
		refused := &client.Error{Code: m[1]}
		if m[2] != "" {
			refused.Params = strings.Split(m[2], ", ")
		}
		return refused
	}
	if status.Code == http.StatusNotFound || status.Code == http.StatusMethodNotAllowed {
		return &client.Error{Code: "NOT_IMPLEMENTED", Params: []string{verb + " " + path}}
	}
	return err
}

// fetch writes what the host sends into a new file, which only its owner can
// read, and onto its medium. A file that is there is never overwritten.
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
	err = disk.Save(ctx, f, body)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = fmt.Errorf("the host ended %s before it was complete: %w", path, err)
	}
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
	if _, err := os.Stat(name); err != nil {
		return err // before there is a task of it
	}
	task := ""
	if st.answer != "" {
		if err := s.api.Call(ctx, "task.create", &task, "xe "+s.Command, ""); err != nil {
			return err
		}
		query.Set("task_id", task)
	}
	if err := s.api.PutFile(ctx, path, query, name); err != nil || task == "" {
		return err
	}
	result, err := s.await(ctx, task, s.Command)
	if err != nil {
		return err
	}
	_, class, _ := strings.Cut(st.answer, ":")
	return s.answerUUIDs(ctx, class, valueTexts(result)...)
}
