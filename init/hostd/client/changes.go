package client

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/http"
	"net/url"
)

// MaxLog bounds a log, in bytes: a bit for each 64 KiB of the largest disk, and what
// goes with it.
const MaxLog = 32<<20 + 4<<10

// AllocationBlock is what one bit of an Allocation stands for.
const AllocationBlock = 64 << 10

// Allocation says which parts of a disk a layer holds itself, as data or as zeros.
type Allocation struct {
	Size int64 // virtual, of the disk
	// Bits has one for each AllocationBlock, the first in the most significant bit of
	// the first byte. Those behind the end of the disk are 0.
	Bits []byte
}

// Encode is an allocation as it travels.
func (a Allocation) Encode() []byte {
	return append(binary.BigEndian.AppendUint64(make([]byte, 0, 8+len(a.Bits)), uint64(a.Size)), a.Bits...)
}

// Allocation asks what a layer holds itself; a raw volume holds all. Nobody may write
// to it meanwhile, which hostd cannot know of a QEMU. A layer that was not made here
// may be CodeUnsupported.
func (c *Client) Allocation(ctx context.Context, sr, name string) (Allocation, error) {
	path := volumePath(sr, name) + "/allocation"
	b, err := c.exchange(ctx, http.MethodGet, path, "", nil, MaxLog)
	if err != nil {
		return Allocation{}, err
	}
	if len(b) < 8 {
		return Allocation{}, fmt.Errorf("hostd: GET %s: %d bytes", path, len(b))
	}
	return Allocation{Size: int64(binary.BigEndian.Uint64(b)), Bits: b[8:]}, nil
}

// ChangeLog is a text of the toolstack that is kept with volumes, which it is none of.
type ChangeLog struct {
	Name string `json:"name"`
}

func logPath(sr, name string) string { return repositoryPath(sr) + "/logs/" + url.PathEscape(name) }

// ChangeLogs lists the logs of an attached repository by name.
func (c *Client) ChangeLogs(ctx context.Context, sr string) ([]ChangeLog, error) {
	return get[[]ChangeLog](ctx, c, repositoryPath(sr)+"/logs")
}

// WriteChangeLog keeps a text, which is there whole and on disk when it returns, or not at
// all. Names are those of volumes, of at most 56 bytes; one that is taken is
// CodeConflict.
func (c *Client) WriteChangeLog(ctx context.Context, sr, name string, text []byte) error {
	_, err := c.exchange(ctx, http.MethodPut, logPath(sr, name), "application/octet-stream", text, maxAnswer)
	return err
}

// ReadChangeLog returns the text and, in a repository of TypeLVM, zeros up to a multiple of
// 512.
func (c *Client) ReadChangeLog(ctx context.Context, sr, name string) ([]byte, error) {
	return c.exchange(ctx, http.MethodGet, logPath(sr, name), "", nil, MaxLog)
}

// DeleteChangeLog removes a log. One that is not there is a success.
func (c *Client) DeleteChangeLog(ctx context.Context, sr, name string) error {
	_, err := do[struct{}](ctx, c, http.MethodDelete, logPath(sr, name), "", nil)
	return err
}
