package hostd

import (
	"errors"
	"net/http"

	"cairn/init/hostd/client"
	"cairn/init/nvram"
)

func (h *Host) putNVRAM(w http.ResponseWriter, r *http.Request) {
	var req client.NVRAM
	if err := decode(w, r, &req); err != nil {
		h.refuse(w, r, err)
		return
	}
	err := h.nvram().Copy(req.From, r.PathValue("uuid"), nvram.Parts{Variables: req.Variables, TPM: req.TPM}, req.Draft)
	h.reply(w, r, struct{}{}, nvramError(err))
}

func (h *Host) keepNVRAM(w http.ResponseWriter, r *http.Request) {
	h.reply(w, r, struct{}{}, nvramError(h.nvram().Keep(r.PathValue("uuid"))))
}

func (h *Host) deleteNVRAM(w http.ResponseWriter, r *http.Request) {
	h.reply(w, r, struct{}{}, nvramError(h.nvram().Drop(r.PathValue("uuid"))))
}

func (h *Host) getNVRAM(w http.ResponseWriter, r *http.Request) {
	drafts, err := h.nvram().Drafts()
	if drafts == nil {
		drafts = []string{}
	}
	h.reply(w, r, drafts, err)
}

func (h *Host) nvram() nvram.Store { return nvram.Store{Dir: h.Paths.Libvirt} }

func nvramError(err error) error {
	switch {
	case errors.Is(err, nvram.ErrName):
		return badRequest(err.Error())
	case errors.Is(err, nvram.ErrBusy):
		return &client.Error{Status: http.StatusConflict, Code: client.CodeInUse, Message: err.Error()}
	}
	return err
}
