package machine

import (
	"context"
	"errors"
	"io"

	"cairn/toolstack/api"
	"cairn/toolstack/storage"
	"cairn/toolstack/transfer/archive"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/plan"
)

// filler makes the disks of a plan as their bytes come.
type filler struct {
	m        *Manager
	p        *plan.Plan
	places   map[string]int // of disks in the plan, by folder
	made     []api.VDIRef   // by place
	progress func(float64)

	folder string      // of the disk under way
	device disk.Device // nil for one that nobody wants
	sink   *disk.Sink
	done   float64 // bytes of disks before it
	total  float64
}

// fill reads all there is. A disk exists from its first bytes on, so a description of
// thousands makes none.
func (f *filler) fill(ctx context.Context, r contents) (err error) {
	for i, d := range f.p.Disks {
		f.places[d.ID] = i
	}
	f.total = 1
	for _, size := range f.p.Sizes {
		f.total += float64(max(size, 0))
	}
	defer func() {
		if err != nil {
			_ = f.finish() // which is told already
		}
	}()
	r.Expect(f.p.Sizes)
	for {
		c, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil {
			err = f.chunk(ctx, c)
		}
		if err != nil {
			return err
		}
	}
	if err := f.finish(); err != nil {
		return err
	}
	for _, ref := range f.made {
		if ref.IsNull() {
			return archive.ErrShort
		}
	}
	return nil
}

func (f *filler) chunk(ctx context.Context, c archive.Chunk) error {
	if c.Disk != f.folder {
		if err := f.next(ctx, c.Disk); err != nil {
			return err
		}
	}
	f.progress((f.done + float64(c.Offset)) / f.total)
	if f.device == nil {
		return nil
	}
	return told(f.device, f.sink.Write(c.Data, c.Offset))
}

// next makes the disk whose bytes begin to come.
func (f *filler) next(ctx context.Context, folder string) error {
	if err := f.finish(); err != nil {
		return err
	}
	f.folder = folder
	at, wanted := f.places[folder]
	if !wanted {
		return nil
	}
	d := f.p.Disks[at].Record
	ref, err := f.m.cfg.Disks.Create(ctx, storage.CreateSpec{
		SR: f.p.SR, Size: d.VirtualSize, Name: d.NameLabel, Description: d.NameDescription, Type: kindOf(d.Type),
		Sharable: d.Sharable, OtherConfig: d.OtherConfig, XenstoreData: d.XenstoreData, Tags: d.Tags,
	})
	if err != nil {
		return err
	}
	f.made[at] = ref
	if f.device, err = f.m.cfg.Disks.Open(ctx, ref, true); err == nil {
		f.sink = disk.NewSink(ctx, f.device)
	}
	return err
}

// kindOf is what a disk of a VM may be: what else others call theirs has a meaning for
// a pool that a disk which just came cannot have.
func kindOf(t api.VDIType) api.VDIType {
	switch t {
	case api.VDITypeSystem, api.VDITypeEphemeral, api.VDITypeSuspend:
		return t
	}
	return api.VDITypeUser
}

// finish makes sure that the disk under way is on its medium.
func (f *filler) finish() error {
	f.done += float64(f.p.Sizes[f.folder])
	d := f.device
	if d == nil {
		return nil
	}
	f.device = nil
	err := told(d, f.sink.Finish())
	if closed := d.Close(); err == nil {
		err = closed
	}
	return err
}

// told is an error of a disk as a client is told it, where the disk can say.
func told(d disk.Device, err error) error {
	if known, ok := d.(interface{ Failed(error) error }); ok {
		return known.Failed(err)
	}
	return err
}
