package hostd

import (
	"encoding/json"
	"errors"
	"net/http"
	"regexp"

	"cairn/init/hostd/client"
	"cairn/init/network"
)

// managementBridge is the bridge over the management network's NIC.
const managementBridge = "xenbr0"

// linkName is what the names of bridges and ports may be: less than the kernel
// takes, but all that anybody needs.
var linkName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,14}$`)

// An MTU the kernel could take. What a NIC can is its driver's to say.
const (
	minMTU = 68 // RFC 791
	maxMTU = 65535
)

func (h *Host) putBridge(w http.ResponseWriter, r *http.Request) {
	var b client.Bridge
	if err := named(w, r, &b, &b.Name); err != nil {
		h.refuse(w, r, err)
		return
	}
	want, err := bridgeOf(b)
	if err == nil {
		err = h.network.PutBridge(r.Context(), want)
	}
	if err != nil {
		h.refuse(w, r, networkError(err))
		return
	}
	h.answer(w, struct{}{})
}

// named reads a JSON body into v, whose name, if it says one, is that of the path.
func named(w http.ResponseWriter, r *http.Request, v any, name *string) error {
	text, err := body(w, r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, v); err != nil {
		return badRequest("body: " + err.Error())
	}
	path := r.PathValue("name")
	if *name != "" && *name != path {
		return badRequest("body: the name is " + *name + ", not " + path)
	}
	*name = path
	return nil
}

func bridgeOf(b client.Bridge) (network.Bridge, error) {
	switch {
	case !linkName.MatchString(b.Name):
		return network.Bridge{}, badRequest("bridge: bad name")
	case b.Uplink != "" && !linkName.MatchString(b.Uplink):
		return network.Bridge{}, badRequest("bridge " + b.Name + ": bad name of the uplink")
	case b.MTU != 0 && (b.MTU < minMTU || b.MTU > maxMTU):
		return network.Bridge{}, badRequest("bridge " + b.Name + ": bad MTU")
	}
	return network.Bridge{Name: b.Name, Uplink: b.Uplink, MTU: b.MTU}, nil
}

// networkError gives an error of the network the code a caller can branch on.
func networkError(err error) error {
	switch {
	case errors.Is(err, network.ErrNoUplink):
		return &client.Error{Status: http.StatusNotFound, Code: client.CodeNotFound, Message: err.Error()}
	case errors.Is(err, network.ErrInUse):
		return &client.Error{Status: http.StatusConflict, Code: client.CodeInUse, Message: err.Error()}
	}
	return err
}

func (h *Host) deleteBridge(w http.ResponseWriter, r *http.Request) {
	if err := h.network.DeleteBridge(r.Context(), r.PathValue("name")); err != nil {
		h.refuse(w, r, networkError(err))
		return
	}
	h.answer(w, struct{}{})
}

func (h *Host) getBridges(w http.ResponseWriter, r *http.Request) {
	all, err := h.network.Bridges(r.Context())
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	out := []client.Bridge{}
	for _, b := range all {
		bridge := client.Bridge{Name: b.Name, Uplink: b.Uplink, MTU: b.MTU, MAC: b.MAC, Management: b.Management, Ports: b.Guests}
		if b.Missing {
			bridge.Error = "not there yet"
		}
		out = append(out, bridge)
	}
	h.answer(w, out)
}
