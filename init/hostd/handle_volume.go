package hostd

import (
	"context"
	"encoding/json"
	"net/http"

	"cairn/init/hostd/client"
)

func (h *Host) getVolumes(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := patient(w, r, shortVerb)
	defer cancel()
	list, err := h.repositories.Volumes(ctx, r.PathValue("sr"))
	h.reply(w, r, list, err)
}

func (h *Host) getVolume(w http.ResponseWriter, r *http.Request) {
	volumeVerb(h, w, r, nil, func(ctx context.Context, sr, name string, _ struct{}) (any, error) {
		return h.repositories.Volume(ctx, sr, name)
	})
}

func (h *Host) putVolume(w http.ResponseWriter, r *http.Request) {
	volumeVerb(h, w, r, decode, func(ctx context.Context, sr, name string, spec client.VolumeSpec) (any, error) {
		return h.repositories.CreateVolume(ctx, sr, name, spec)
	})
}

func (h *Host) deleteVolume(w http.ResponseWriter, r *http.Request) {
	volumeVerb(h, w, r, nil, func(ctx context.Context, sr, name string, _ struct{}) (any, error) {
		return struct{}{}, h.repositories.DeleteVolume(ctx, sr, name)
	})
}

func (h *Host) postResize(w http.ResponseWriter, r *http.Request) {
	volumeVerb(h, w, r, decode, func(ctx context.Context, sr, name string, req client.ResizeRequest) (any, error) {
		return h.repositories.ResizeVolume(ctx, sr, name, req.Size)
	})
}

func (h *Host) postActivate(w http.ResponseWriter, r *http.Request) {
	volumeVerb(h, w, r, nil, func(ctx context.Context, sr, name string, _ struct{}) (any, error) {
		return h.repositories.ActivateVolume(ctx, sr, name)
	})
}

func (h *Host) postDeactivate(w http.ResponseWriter, r *http.Request) {
	volumeVerb(h, w, r, nil, func(ctx context.Context, sr, name string, _ struct{}) (any, error) {
		return h.repositories.DeactivateVolume(ctx, sr, name)
	})
}

func (h *Host) postRebase(w http.ResponseWriter, r *http.Request) {
	volumeVerb(h, w, r, decode, func(ctx context.Context, sr, name string, req client.RebaseRequest) (any, error) {
		return struct{}{}, h.repositories.RebaseVolume(ctx, sr, name, req.Backing)
	})
}

func (h *Host) putNote(w http.ResponseWriter, r *http.Request) {
	volumeVerb(h, w, r, decode, func(ctx context.Context, sr, name string, req client.NoteRequest) (any, error) {
		return struct{}{}, h.repositories.NoteVolume(ctx, sr, name, req.Note)
	})
}

// volumeVerb runs a verb that answers when it is done. read, if the verb has a
// body, reads it.
func volumeVerb[T any](h *Host, w http.ResponseWriter, r *http.Request, read func(http.ResponseWriter, *http.Request, any) error, do func(ctx context.Context, sr, name string, req T) (any, error)) {
	var req T
	if read != nil {
		if err := read(w, r, &req); err != nil {
			h.refuse(w, r, err)
			return
		}
	}
	ctx, cancel := patient(w, r, shortVerb)
	defer cancel()
	out, err := do(ctx, r.PathValue("sr"), r.PathValue("name"), req)
	h.reply(w, r, out, err)
}

// What works on a volume's data is a job.

func (h *Host) postCommit(w http.ResponseWriter, r *http.Request) {
	sr, name := r.PathValue("sr"), r.PathValue("name")
	h.startJob(w, r, "", func(ctx context.Context, progress func(float64)) (any, error) {
		return struct{}{}, h.repositories.CommitVolume(ctx, sr, name, progress)
	})
}

func (h *Host) postCheck(w http.ResponseWriter, r *http.Request) {
	sr, name := r.PathValue("sr"), r.PathValue("name")
	h.startJob(w, r, "", func(ctx context.Context, _ func(float64)) (any, error) {
		return h.repositories.CheckVolume(ctx, sr, name)
	})
}

func (h *Host) postCopy(w http.ResponseWriter, r *http.Request) {
	var req client.CopyRequest
	if err := decode(w, r, &req); err != nil {
		h.refuse(w, r, err)
		return
	}
	key, err := json.Marshal(req)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	sr, name := r.PathValue("sr"), r.PathValue("name")
	h.startJob(w, r, string(key), func(ctx context.Context, progress func(float64)) (any, error) {
		return h.repositories.CopyVolume(ctx, sr, name, req.Repository, req.Name, progress)
	})
}
