package storage

import (
	"context"
	"maps"

	"cairn/toolstack/api"
)

// MarkKey of VDI.sm_config names the operation a new disk was made for, until the
// transaction that makes the disk part of something takes it out. A disk that
// still has it when its operation is no more belongs to nobody.
const MarkKey = "made-for"

type markKey struct{}

// Marked returns a context under which the rows of new disks get a mark, in the
// transaction that writes them.
func Marked(ctx context.Context, mark string) context.Context {
	return context.WithValue(ctx, markKey{}, mark)
}

// mark is called for the row of each new disk (created, cloned, copied, made by a
// snapshot) before it is written.
func mark(ctx context.Context, vdi *api.VDI) {
	text, ok := ctx.Value(markKey{}).(string)
	if !ok {
		return
	}
	config := maps.Clone(vdi.SMConfig)
	if config == nil {
		config = map[string]string{}
	}
	config[MarkKey] = text
	vdi.SMConfig = config
}
