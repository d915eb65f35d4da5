package hostd

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"cairn/init/hostd/client"
)

// postExport lends a volume out for as long as the request lasts. The answer has two
// lines: where it is lent out, as soon as it is; and how that ended.
func (h *Host) postExport(w http.ResponseWriter, r *http.Request) {
	var req client.ExportRequest
	if err := decode(w, r, &req); err != nil {
		h.refuse(w, r, err)
		return
	}
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(h.running, cancel)()
	c := http.NewResponseController(w)
	// A connection that cannot be told keeps the server's limits.
	_ = c.SetReadDeadline(time.Time{})
	_ = c.SetWriteDeadline(time.Time{})
	lines, begun := json.NewEncoder(w), false
	err := h.repositories.ExportVolume(ctx, r.PathValue("sr"), r.PathValue("name"), req, func(e client.Export) error {
		begun = true
		w.Header().Set("Content-Type", "application/json")
		return errors.Join(lines.Encode(e), c.Flush())
	})
	if !begun {
		h.refuse(w, r, err)
		return
	}
	var last client.ExportEnd
	if err != nil {
		last.Error = failure(err)
		h.Log.Warn("export-ended", "verb", r.Method+" "+r.URL.Path, "code", last.Error.Code, "err", err)
	}
	if err := lines.Encode(last); err != nil {
		h.Log.Debug("answer-not-sent", "err", err)
	}
}

// deleteExport asks an export to end; its own answer says when it has, and how.
func (h *Host) deleteExport(w http.ResponseWriter, r *http.Request) {
	h.repositories.EndExport(r.PathValue("id"))
	h.answer(w, struct{}{})
}
