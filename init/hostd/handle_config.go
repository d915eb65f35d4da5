package hostd

import (
	"errors"
	"net/http"

	"cairn/init/config"
	"cairn/init/hostd/client"
)

func (h *Host) getConfig(w http.ResponseWriter, _ *http.Request) {
	h.answer(w, h.keeper.get())
}

// putConfig replaces the document. A wrong one changes nothing.
func (h *Host) putConfig(w http.ResponseWriter, r *http.Request) {
	text, err := body(w, r)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	c, err := h.replace(text)
	var problems config.Problems
	switch {
	case errors.As(err, &problems):
		h.refuse(w, r, &client.Error{
			Status: http.StatusBadRequest, Code: client.CodeConfigInvalid,
			Message: problems.Error(), Line: problems[0].Line,
		})
	case err != nil:
		h.refuse(w, r, err)
	default:
		h.answer(w, c)
	}
}
