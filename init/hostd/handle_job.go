package hostd

import (
	"context"
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"cairn/init/hostd/job"
)

// pollLimit is how long a poll for news of a job waits. shortVerb bounds what is
// not a job and may still wait for a disk.
const (
	pollLimit = 30 * time.Second
	shortVerb = 5 * time.Minute
)

// getJob answers when the job's revision is not ?after= any more.
func (h *Host) getJob(w http.ResponseWriter, r *http.Request) {
	after := int64(0)
	if text := r.URL.Query().Get("after"); text != "" {
		var err error
		if after, err = strconv.ParseInt(text, 10, 64); err != nil {
			h.refuse(w, r, badRequest("after must be a revision"))
			return
		}
	}
	ctx, cancel := patient(w, r, pollLimit)
	defer cancel()
	j, err := h.jobs.Wait(ctx, r.PathValue("id"), after)
	h.reply(w, r, j, err)
}

func (h *Host) deleteJob(w http.ResponseWriter, r *http.Request) {
	h.reply(w, r, struct{}{}, h.jobs.Cancel(r.PathValue("id")))
}

// patient gives a request more time than the server's limits, which are for
// clients that dawdle and not for disks that do.
func patient(w http.ResponseWriter, r *http.Request, limit time.Duration) (context.Context, context.CancelFunc) {
	c := http.NewResponseController(w)
	// A connection that cannot be told keeps the server's limits.
	_ = c.SetReadDeadline(time.Time{})
	_ = c.SetWriteDeadline(time.Now().Add(limit + writeTimeout))
	return context.WithTimeout(r.Context(), limit)
}

// reply answers with a value or refuses with an error.
func (h *Host) reply(w http.ResponseWriter, r *http.Request, v any, err error) {
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	h.answer(w, v)
}

// decode reads a request's body into v.
func decode(w http.ResponseWriter, r *http.Request, v any) error {
	text, err := body(w, r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return badRequest("body: " + err.Error())
	}
	return nil
}

// startJob answers with a job that does the work, or that does it already.
func (h *Host) startJob(w http.ResponseWriter, r *http.Request, text string, work job.Work) {
	verb := r.Method + " " + r.URL.Path
	j, err := h.jobs.Start(verb+" "+text, verb, work)
	h.reply(w, r, j, err)
}
