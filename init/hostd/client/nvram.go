package client

import (
	"context"
	"net/http"
	"net/url"
)

// NVRAM names what a machine's firmware and TPM remember between runs.
type NVRAM struct {
	// From is the machine to copy from; it may run.
	From string `json:"from"`
	// Variables are UEFI's.
	Variables bool `json:"variables,omitempty"`
	TPM       bool `json:"tpm,omitempty"`
	// Draft: the machine copied to is being made. Its state is listed as a draft,
	// before its first byte is written, until it is kept or dropped.
	Draft bool `json:"draft,omitempty"`
}

func nvramPath(uuid string) string { return "/v1/nvram/" + url.PathEscape(uuid) }

// CopyNVRAM makes parts of what one machine remembers those of another, which must
// not run. What the first has none of, the other has none of afterwards. It may be
// repeated.
func (c *Client) CopyNVRAM(ctx context.Context, to string, what NVRAM) error {
	return c.put(ctx, nvramPath(to), what)
}

// KeepNVRAM makes a draft a state like any other; one that is none is a success.
func (c *Client) KeepNVRAM(ctx context.Context, uuid string) error {
	_, err := send[struct{}](ctx, c, http.MethodPost, nvramPath(uuid)+"/keep", nil)
	return err
}

// DropNVRAM removes a draft. A state that is none stays, and is a success: that of
// a machine goes with the machine, by the hypervisor.
func (c *Client) DropNVRAM(ctx context.Context, uuid string) error {
	_, err := do[struct{}](ctx, c, http.MethodDelete, nvramPath(uuid), "", nil)
	return err
}

// DraftNVRAM lists the machines whose states are drafts.
func (c *Client) DraftNVRAM(ctx context.Context) ([]string, error) {
	return get[[]string](ctx, c, "/v1/nvram")
}
