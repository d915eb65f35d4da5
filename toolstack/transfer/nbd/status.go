package nbd

import (
	"context"
	"errors"
	"fmt"

	"cairn/toolstack/transfer/disk"
)

// Status is a run of bytes of which a context says the same.
type Status struct {
	Off, Len int64
	Flags    uint32
}

// Knows tells whether the server knows a context.
func (c *Client) Knows(name string) bool {
	_, ok := c.contexts[name]
	return ok
}

// Status asks what a context says of [off, off+n): runs in order and without gaps.
// Neighbours may be alike.
func (c *Client) Status(ctx context.Context, name string, off, n int64) (all []Status, err error) {
	id, ok := c.contexts[name]
	if !ok {
		return nil, fmt.Errorf("the server does not know %s of the disk", name)
	}
	if err := disk.Within(off, n, c.size); err != nil {
		return nil, err
	}
	for end := off + n; off < end; {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		k := &call{kind: cmdStatus, off: off, length: min(longStep, end-off)}
		if err := c.begin(k, nil); err != nil {
			return nil, err
		}
		if err := wait(k); err != nil {
			return nil, err
		}
		if len(k.status[id]) == 0 {
			return nil, broken("nothing of %s in the answer to the request to %s", name, k)
		}
		for _, s := range k.status[id] {
			if off == end {
				break // the last may reach further
			}
			l := min(int64(s.length), end-off)
			all = append(all, Status{off, l, s.flags})
			off += l
		}
	}
	return all, nil
}

// Extents implements disk.Device.
func (c *Client) Extents(ctx context.Context, off, n int64) (list []disk.Extent, err error) {
	if !c.Knows(Allocation) {
		return disk.Append(nil, disk.Extent{Off: off, Len: n}), errors.Join(context.Cause(ctx), disk.Within(off, n, c.size))
	}
	all, err := c.Status(ctx, Allocation, off, n)
	for _, s := range all {
		list = disk.Append(list, disk.Extent{Off: s.Off, Len: s.Len, Zero: s.Flags&zeroFlag != 0})
	}
	return list, err
}
