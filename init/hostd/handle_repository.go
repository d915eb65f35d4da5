package hostd

import (
	"context"
	"encoding/json"
	"net/http"

	"cairn/init/hostd/client"
)

func (h *Host) postProbe(w http.ResponseWriter, r *http.Request) {
	var config client.RepositoryConfig
	if err := decode(w, r, &config); err != nil {
		h.refuse(w, r, err)
		return
	}
	ctx, cancel := patient(w, r, shortVerb)
	defer cancel()
	found, err := h.repositories.Probe(ctx, config)
	h.reply(w, r, found, err)
}

func (h *Host) getRepository(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := patient(w, r, shortVerb)
	defer cancel()
	out, err := h.repositories.Repository(ctx, r.PathValue("sr"))
	h.reply(w, r, out, err)
}

// Making, removing and attaching a repository may take a file system check's time.

func (h *Host) postFormat(w http.ResponseWriter, r *http.Request) {
	h.repositoryJob(w, r, func(ctx context.Context, sr string, config client.RepositoryConfig) (any, error) {
		return h.repositories.Format(ctx, sr, config)
	})
}

func (h *Host) postErase(w http.ResponseWriter, r *http.Request) {
	h.repositoryJob(w, r, func(ctx context.Context, sr string, config client.RepositoryConfig) (any, error) {
		return struct{}{}, h.repositories.Erase(ctx, sr, config)
	})
}

func (h *Host) postAttach(w http.ResponseWriter, r *http.Request) {
	h.repositoryJob(w, r, func(ctx context.Context, sr string, config client.RepositoryConfig) (any, error) {
		return h.repositories.Attach(ctx, sr, config)
	})
}

func (h *Host) repositoryJob(w http.ResponseWriter, r *http.Request, do func(context.Context, string, client.RepositoryConfig) (any, error)) {
	var config client.RepositoryConfig
	if err := decode(w, r, &config); err != nil {
		h.refuse(w, r, err)
		return
	}
	key, err := json.Marshal(config) // the order of its keys does not matter
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	sr := r.PathValue("sr")
	h.startJob(w, r, string(key), func(ctx context.Context, _ func(float64)) (any, error) { return do(ctx, sr, config) })
}

func (h *Host) postDetach(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := patient(w, r, shortVerb)
	defer cancel()
	h.reply(w, r, struct{}{}, h.repositories.Detach(ctx, r.PathValue("sr")))
}
