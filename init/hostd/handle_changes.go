package hostd

import (
	"context"
	"net/http"

	"cairn/init/hostd/client"
)

func (h *Host) getAllocation(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := patient(w, r, shortVerb)
	defer cancel()
	a, err := h.repositories.Allocation(ctx, r.PathValue("sr"), r.PathValue("name"))
	h.octets(w, r, a.Encode(), err)
}

func (h *Host) getChangeLogs(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := patient(w, r, shortVerb)
	defer cancel()
	list, err := h.repositories.ChangeLogs(ctx, r.PathValue("sr"))
	h.reply(w, r, list, err)
}

func (h *Host) getChangeLog(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := patient(w, r, shortVerb)
	defer cancel()
	text, err := h.repositories.ReadChangeLog(ctx, r.PathValue("sr"), r.PathValue("name"))
	h.octets(w, r, text, err)
}

func (h *Host) putChangeLog(w http.ResponseWriter, r *http.Request) {
	text, err := bodyOf(w, r, client.MaxLog)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	ctx, cancel := patient(w, r, shortVerb)
	defer cancel()
	h.reply(w, r, struct{}{}, h.repositories.WriteChangeLog(ctx, r.PathValue("sr"), r.PathValue("name"), text))
}

func (h *Host) deleteChangeLog(w http.ResponseWriter, r *http.Request) {
	volumeVerb(h, w, r, nil, func(ctx context.Context, sr, name string, _ struct{}) (any, error) {
		return struct{}{}, h.repositories.DeleteChangeLog(ctx, sr, name)
	})
}

// octets answers with bytes or refuses with an error.
func (h *Host) octets(w http.ResponseWriter, r *http.Request, b []byte, err error) {
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	_, _ = w.Write(b) // a client that has gone needs none
}
