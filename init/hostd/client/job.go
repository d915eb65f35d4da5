package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// cancelPatience is how long a caller that gave up waits to hear that what it
// asked for has ended and is cleaned up.
const cancelPatience = 15 * time.Second

// beginLimit is for a hostd that is busy starting.
const beginLimit = time.Minute

// Job asks for a job; with after it waits, up to half a minute, until the job's
// revision is another.
func (c *Client) Job(ctx context.Context, id string, after int64) (Job, error) {
	q := url.Values{"after": {strconv.FormatInt(after, 10)}}
	return get[Job](ctx, c, "/v1/jobs/"+url.PathEscape(id)+"?"+q.Encode())
}

// CancelJob asks a job to end; it has ended when its state says so.
func (c *Client) CancelJob(ctx context.Context, id string) error {
	_, err := do[struct{}](ctx, c, http.MethodDelete, "/v1/jobs/"+url.PathEscape(id), "", nil)
	return err
}

// send sends a body as JSON and returns the answer.
func send[T any](ctx context.Context, c *Client, method, path string, body any) (T, error) {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			var none T
			return none, fmt.Errorf("hostd: %s %s: %w", method, path, err)
		}
	}
	return do[T](ctx, c, method, path, "application/json", text)
}

// work starts a job and follows it to its end.
func work[T any](ctx context.Context, c *Client, path string, body any, progress func(float64)) (T, error) {
	var out T
	if err := ctx.Err(); err != nil {
		return out, err
	}
	job, err := c.begin(ctx, path, body)
	if err != nil {
		return out, err
	}
	if job, err = c.follow(ctx, job, progress); err != nil {
		return out, err
	}
	if job.State != JobDone {
		return out, job.failure()
	}
	if err := json.Unmarshal(job.Result, &out); err != nil {
		return out, fmt.Errorf("hostd: result of %s: %w", job.Verb, err)
	}
	return out, nil
}

// begin is not cut off by ctx: a job that nobody has heard of could not be
// cancelled.
func (c *Client) begin(ctx context.Context, path string, body any) (Job, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), beginLimit)
	defer cancel()
	return send[Job](ctx, c, http.MethodPost, path, body)
}

// follow polls until the job has ended. When ctx is done it cancels the job and
// stays a little to see it end, so that the caller may repeat or clean up.
func (c *Client) follow(ctx context.Context, job Job, progress func(float64)) (Job, error) {
	for job.State == JobRunning {
		if progress != nil {
			progress(job.Progress)
		}
		next, err := c.Job(ctx, job.ID, job.Revision)
		switch {
		case ctx.Err() != nil:
			return job, errors.Join(ctx.Err(), c.abandon(context.WithoutCancel(ctx), job.ID))
		case lost(err):
			return job, &Error{Status: http.StatusGone, Code: CodeJobLost, Message: job.Verb + ": hostd was restarted"}
		case err != nil:
			return job, err
		}
		job = next
	}
	return job, nil
}

// lost says that hostd, which knew the job, does not know it any more.
func lost(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == CodeNotFound
}

func (c *Client) abandon(ctx context.Context, id string) error {
	ctx, cancel := context.WithTimeout(ctx, cancelPatience)
	defer cancel()
	if err := c.CancelJob(ctx, id); err != nil {
		return err
	}
	for after := int64(0); ; {
		job, err := c.Job(ctx, id, after)
		if err != nil || job.State != JobRunning {
			return err
		}
		after = job.Revision
	}
}

func (j Job) failure() error {
	if j.Error != nil {
		return j.Error
	}
	return &Error{Status: http.StatusInternalServerError, Code: CodeInternal, Message: fmt.Sprintf("%s: %s", j.Verb, j.State)}
}
