package life

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"slices"

	"cairn/image/guest/agent"
	"cairn/init/hostd/client"
)

// grown is the size of the guest's disk after its resize.
const grown = diskSize + 32<<20

// sumOf is the checksum of a disk of a size that begins with a pattern.
func sumOf(seed int64, mib int, size int64) string {
	h := sha256.New()
	_, _ = io.Copy(h, io.LimitReader(agent.Pattern(seed), int64(mib)<<20))
	_, _ = io.Copy(h, io.LimitReader(zeros{}, size-int64(mib)<<20))
	return hex.EncodeToString(h.Sum(nil))
}

type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// Short is a life in which only the disk goes through something: a snapshot while
// the guest runs, revert, clone and resize. Its contents are compared with what
// they must be by the guest's pattern, not with what was read before.
func (l *Life) Short(ctx context.Context) {
	l.T.Helper()
	one := sumOf(1, 8, diskSize)
	tty := Up(ctx, l.T, l.Guest)
	tty.Ask(ctx, l.T, "fill %s 1 8", l.disk)
	l.holds(ctx, tty, l.disk, one, "filled")
	snapshot := l.API.Ref(ctx, "VM.snapshot", l.Guest.Ref, "first")
	tty.Ask(ctx, l.T, "fill %s 2 8", l.disk)
	l.holds(ctx, tty, l.disk, sumOf(2, 8, diskSize), "written to after a snapshot")
	l.halt(ctx)
	l.API.Call(ctx, nil, "VM.revert", snapshot)
	l.sound(ctx)
	l.copies(ctx, one)
	l.API.Call(ctx, nil, "VDI.resize", l.current(ctx), grown)
	l.sound(ctx)
	tty = Up(ctx, l.T, l.Guest)
	l.holds(ctx, tty, l.disk, sumOf(1, 8, grown), "grown")
	l.halt(ctx)
	l.nothingLeft(ctx, snapshot)
}

// current is the guest's disk of now: a revert gives it another.
func (l *Life) current(ctx context.Context) string {
	l.T.Helper()
	return l.API.Ref(ctx, "VBD.get_VDI", l.API.First(ctx, "VM.get_VBDs", l.Guest.Ref))
}

// Blank asserts that a device holds nothing: hostd offers it for a new repository.
func (l *Life) Blank(ctx context.Context, kind, device string) {
	l.T.Helper()
	hostd := l.Host.Hostd()
	defer hostd.Close()
	found, err := hostd.Probe(ctx, client.RepositoryConfig{Type: kind})
	must(l.T, err)
	if !slices.ContainsFunc(found, func(r client.Repository) bool { return r.UUID == "" && r.Config["device"] == device }) {
		l.T.Errorf("%s is no blank disk: %+v", device, found)
	}
}
