package hostd

import (
	"encoding/json"
	"net/http"

	"cairn/init/hostd/client"
)

// postPower answers once PID 1 has been asked; the end itself takes its time.
func (h *Host) postPower(w http.ResponseWriter, r *http.Request) {
	text, err := body(w, r)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	var req client.PowerRequest
	if err := json.Unmarshal(text, &req); err != nil {
		h.refuse(w, r, badRequest("body: "+err.Error()))
		return
	}
	if req.Action != client.Poweroff && req.Action != client.Reboot {
		h.refuse(w, r, badRequest(`action must be "poweroff" or "reboot"`))
		return
	}
	if err := h.power(req.Action, "api"); err != nil {
		h.refuse(w, r, err)
		return
	}
	h.answer(w, struct{}{})
}

func (h *Host) power(action client.PowerAction, by string) error {
	h.Log.Info("power-request", "action", action, "by", by)
	return h.System.Power(action)
}
