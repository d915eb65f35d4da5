package volume

import (
	"encoding/hex"
	"errors"
	"io"
	"iter"
	"strconv"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/vhd"
)

// id is a uuid's bytes; one that is no uuid has none.
func id(uuid string) (out vhd.ID) {
	b, err := hex.DecodeString(strings.ReplaceAll(uuid, "-", ""))
	if err == nil {
		copy(out[:], b)
	}
	return out
}

// writeVHD sends a dynamic image, or with a base a differencing one of what changed.
func writeVHD(o *outgoing) error {
	info := vhd.Info{Kind: vhd.Dynamic, Size: o.d.Size(), ID: id(o.disk.UUID), Made: o.now}
	if o.from != nil {
		info.Kind, info.Parent, info.ParentName = vhd.Differencing, id(o.baseDisk.UUID), o.baseDisk.UUID+".vhd"
	}
	if err := info.Check(); err != nil {
		return api.ErrVDITooLarge(o.vdi.String(), strconv.FormatInt(vhd.MaxSize, 10))
	}
	blocks, err := o.blocks()
	if err != nil {
		return err
	}
	o.begin(vhd.Length(info, len(blocks)))
	w, err := vhd.NewWriter(o, info, blocks)
	if err != nil {
		return err
	}
	bitmap := func(disk.Extent) ([]byte, error) { return nil, nil } // all of a block
	if o.from != nil {
		var stop func()
		bitmap, stop = bitmaps(o.brought())
		defer stop()
	}
	err = disk.Read(o, o.d, o.extentsOf(blocks), func(e disk.Extent, data []byte) error {
		sectors, err := bitmap(e)
		if err != nil {
			return err
		}
		return w.Block(e.Off/vhd.BlockSize, data, sectors)
	})
	if err != nil {
		return err
	}
	return w.Close()
}

// brought are the parts that an image is to bring.
func (o *outgoing) brought() iter.Seq2[disk.Extent, error] {
	if o.from != nil {
		return o.d.Changed(o, o.from)
	}
	return disk.All(o, o.d)
}

// blocks are the numbers of the blocks that have something to bring.
func (o *outgoing) blocks() (numbers []int64, err error) {
	for e, err := range disk.Aligned(o.brought(), vhd.BlockSize, o.d.Size()) {
		if err != nil {
			return nil, err
		}
		for at := e.Off; at < e.End(); at += vhd.BlockSize {
			numbers = append(numbers, at/vhd.BlockSize)
		}
	}
	return numbers, nil
}

func (o *outgoing) extentsOf(blocks []int64) iter.Seq2[disk.Extent, error] {
	return func(yield func(disk.Extent, error) bool) {
		for _, n := range blocks {
			off := n * vhd.BlockSize
			if !yield(disk.Extent{Off: off, Len: min(vhd.BlockSize, o.d.Size()-off)}, nil) {
				return
			}
		}
	}
}

// sector is what a block's bitmap counts.
const sector = 512

// bitmaps says of blocks, which come in order, which of their sectors an image brings. It
// goes through the parts that it brings once, as far as the blocks need it, until stop.
func bitmaps(brought iter.Seq2[disk.Extent, error]) (of func(block disk.Extent) ([]byte, error), stop func()) {
	next, stop := iter.Pull2(brought)
	var e disk.Extent // the last that came, which may reach into blocks that follow
	return func(block disk.Extent) ([]byte, error) {
		b := make([]byte, vhd.BlockSize/sector/8)
		for {
			from, to := max(e.Off, block.Off)-block.Off, min(e.End(), block.End())-block.Off
			for s := from / sector; s*sector < to; s++ {
				b[s/8] |= 0x80 >> (s % 8)
			}
			if e.End() >= block.End() {
				return b, nil
			}
			var more bool
			var err error
			if e, err, more = next(); err != nil || !more {
				return b, err
			}
		}
	}, stop
}

// readVHD writes an image to the disk: a whole one so that the disk reads as it does, a
// difference on top of what the disk holds.
func readVHD(in *incoming) error {
	r, err := vhd.NewReader(in.body, in.length)
	if err != nil {
		return refuse(err)
	}
	info := r.Info()
	if info.Size > in.d.Size() {
		return in.tooLarge(info.Size)
	}
	if info.Kind != vhd.Differencing {
		if err := in.sink.Zero(0, in.d.Size()); err != nil {
			return err
		}
	}
	brings, _ := r.Blocks()
	total, done := float64(max(1, brings*vhd.BlockSize)), 0
	for {
		e, err := r.Next()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case errors.Is(err, vhd.ErrFormat) || errors.Is(err, io.ErrUnexpectedEOF):
			return refuse(err)
		case err != nil:
			return err
		}
		if err := in.sink.Write(e.Data, e.Offset); err != nil {
			return err
		}
		done += len(e.Data)
		in.progress(float64(done) / total)
	}
}
