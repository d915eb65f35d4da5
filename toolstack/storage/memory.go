package storage

import (
	"context"
	"io"

	"cairn/toolstack/transfer/disk"
)

// A machine's memory is saved into a file that ends with it, where the repository is one
// of files, and the row says how much room there was. To whoever reads such a disk it is
// as large as the row says, and what the file does not have is zeros.

// Size implements disk.Device.
func (d *Disk) Size() int64 { return max(d.size, d.Client.Size()) }

// held is how many of n bytes the file has.
func (d *Disk) held(off, n int64) int64 { return max(0, min(n, d.Client.Size()-off)) }

// ReadAt implements disk.Device.
func (d *Disk) ReadAt(p []byte, off int64) (int, error) {
	n := max(0, min(int64(len(p)), d.Size()-off))
	has := d.held(off, n)
	if off < 0 || has == n {
		return d.Client.ReadAt(p, off)
	}
	if has > 0 {
		if _, err := d.Client.ReadAt(p[:has], off); err != nil {
			return 0, err
		}
	}
	clear(p[has:n])
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

// Extents implements disk.Device.
func (d *Disk) Extents(ctx context.Context, off, n int64) (list []disk.Extent, err error) {
	if err := disk.Within(off, n, d.Size()); err != nil {
		return nil, err
	}
	has := d.held(off, n)
	if has > 0 {
		if list, err = d.Client.Extents(ctx, off, has); err != nil {
			return nil, err
		}
	}
	return disk.Append(list, disk.Extent{Off: off + has, Len: n - has, Zero: true}), nil
}
