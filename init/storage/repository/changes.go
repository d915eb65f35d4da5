package repository

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"

	"cairn/init/hostd/client"
	"cairn/init/storage/qemuimg"
)

// A log is kept as a volume is, and made in the same steps, so that it is there whole
// or not at all. Its name and its format keep it apart: no verb on volumes finds it.
const (
	logPrefix                = "changes-"
	logFormat  client.Format = "log"
	maxLogName               = 56
)

// Allocation tells which blocks of its disk a layer holds itself.
func (m *Manager) Allocation(ctx context.Context, sr, name string) (a client.Allocation, err error) {
	err = m.with(ctx, sr, reads(name), func(r *repo) error {
		v, err := m.sound(ctx, r, name)
		if err != nil {
			return err
		}
		if v.VirtualSize > qemuimg.MaxTracked {
			return Fail(client.CodeUnsupported, "volume %s has %d bytes", name, v.VirtualSize)
		}
		return m.busy(ctx, func() error {
			a, err = allocation(ctx, r, v)
			if errors.Is(err, qemuimg.ErrOtherLayout) {
				err = Fail(client.CodeUnsupported, "volume %s: %v", name, err)
			}
			return about(err, "allocation of volume %s", name)
		})
	})
	return a, err
}

func allocation(ctx context.Context, r *repo, v client.Volume) (client.Allocation, error) {
	path, release, err := r.read(ctx, v)
	if err != nil {
		return client.Allocation{}, err
	}
	defer release()
	f, err := os.Open(path)
	if err != nil {
		return client.Allocation{}, err
	}
	defer f.Close()
	a := blank(v.VirtualSize)
	if v.Format == client.Raw {
		setBits(a.Bits, 0, a.Size)
		return a, nil
	}
	size, err := qemuimg.Allocated(ctx, f, func(off, n int64) {
		if off < a.Size {
			setBits(a.Bits, off, min(n, a.Size-off))
		}
	})
	if err == nil && size != a.Size {
		err = Fail(client.CodeDamaged, "volume %s has %d bytes and says %d", v.Name, a.Size, size)
	}
	return a, err
}

func blank(size int64) client.Allocation {
	blocks := (size + client.AllocationBlock - 1) / client.AllocationBlock
	return client.Allocation{Size: size, Bits: make([]byte, (blocks+7)/8)}
}

// setBits sets those of the blocks of [off, off+n), which are not behind the end.
func setBits(bits []byte, off, n int64) {
	for at := off; at < off+n; at += client.AllocationBlock {
		block := at / client.AllocationBlock
		bits[block/8] |= 0x80 >> (block % 8)
	}
}

// ChangeLogs lists the logs of a repository by name.
func (m *Manager) ChangeLogs(ctx context.Context, sr string) ([]client.ChangeLog, error) {
	r, err := m.use(ctx, sr)
	if err != nil {
		return nil, err
	}
	list, err := r.list(ctx)
	if err != nil {
		return nil, about(err, "logs of repository %s", sr)
	}
	out := []client.ChangeLog{}
	for _, v := range list {
		if name, ok := strings.CutPrefix(v.Name, logPrefix); ok && v.Format == logFormat {
			out = append(out, client.ChangeLog{Name: name})
		}
	}
	slices.SortFunc(out, func(a, b client.ChangeLog) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// withLog runs a verb on a log, whose volume is found if it is there.
func (m *Manager) withLog(ctx context.Context, sr, name string, needs func(...string) []need, do func(r *repo, v client.Volume, there bool) error) error {
	if err := checkName(name); err != nil || len(name) > maxLogName {
		return errors.Join(err, Fail(client.CodeBadRequest, "%q is not a name for a log", name))
	}
	return m.with(ctx, sr, needs(logPrefix+name), func(r *repo) error {
		v, err := r.volume(ctx, logPrefix+name)
		if err != nil && !is(err, client.CodeNotFound) {
			return about(err, "log %s", name)
		}
		return about(do(r, v, err == nil && v.Format == logFormat), "log %s", name)
	})
}

// WriteChangeLog keeps a log that is not there yet.
func (m *Manager) WriteChangeLog(ctx context.Context, sr, name string, text []byte) error {
	if len(text) == 0 || len(text) > client.MaxLog {
		return Fail(client.CodeTooLarge, "log %s: %d bytes are not between 1 and %d", name, len(text), client.MaxLog)
	}
	return m.withLog(ctx, sr, name, writes, func(r *repo, _ client.Volume, there bool) error {
		if there {
			return Fail(client.CodeConflict, "log %s is there already", name)
		}
		size := int64(len(text)+sector-1) / sector * sector
		return r.receive(ctx, logPrefix+name, client.VolumeSpec{Size: size, Format: logFormat}, func(path string) error {
			return fill(path, text)
		})
	})
}

// fill writes to the beginning of what is there.
func fill(path string, text []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Close())
}

// ReadChangeLog returns a log's text, and zeros where it lies on a medium of blocks.
func (m *Manager) ReadChangeLog(ctx context.Context, sr, name string) (text []byte, err error) {
	err = m.withLog(ctx, sr, name, reads, func(r *repo, v client.Volume, there bool) error {
		if !there {
			return Fail(client.CodeNotFound, "log %s is not in repository %s", name, sr)
		}
		path, release, err := r.read(ctx, v)
		if err != nil {
			return err
		}
		defer release()
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		text, err = io.ReadAll(io.LimitReader(f, min(v.VirtualSize, client.MaxLog)))
		return err
	})
	return text, err
}

// DeleteChangeLog removes a log.
func (m *Manager) DeleteChangeLog(ctx context.Context, sr, name string) error {
	return m.withLog(ctx, sr, name, writes, func(r *repo, v client.Volume, there bool) error {
		if !there {
			return nil
		}
		return r.remove(ctx, v)
	})
}
