package repository

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"cairn/init/hostd/client"
	"cairn/init/storage/qemuimg"
)

// maxLent is how many volumes are lent out at once. Each is a program with its
// caches.
const maxLent = 32

// exportMode lets the group of the directory connect.
const exportMode = 0o660

// ExportVolume lends a volume's bytes out over NBD on a socket of its own, until the
// borrower disconnects, EndExport is called, or ctx ends. ready is told where, and which layers the volume
// reads through: those its headers name, all of which req must have named.
func (m *Manager) ExportVolume(ctx context.Context, sr, name string, req client.ExportRequest, ready func(client.Export) error) error {
	select {
	case m.lent <- struct{}{}:
	default:
		return Fail(client.CodeInUse, "volume %s: %d volumes are lent out already", name, maxLent)
	}
	defer func() { <-m.lent }()
	what, names := "read", reads(name)
	if req.Writable {
		what, names = "written to", writes(name)
	}
	return m.during(ctx, "volume "+name+" is being "+what, sr, names, func(r *repo) error {
		chain, err := m.lendable(ctx, r, name, req)
		if err != nil {
			return err
		}
		_, release, err := r.read(ctx, chain[0])
		if err != nil {
			return err
		}
		defer release()
		if err := holds(&chain[0], req); err != nil {
			return err
		}
		return about(m.lend(ctx, chain, req.Writable, ready), "export volume %s", name)
	})
}

// lendable checks what is to be lent out and returns its layers, the top one first.
func (m *Manager) lendable(ctx context.Context, r *repo, name string, req client.ExportRequest) ([]client.Volume, error) {
	chain, err := m.chain(ctx, r, name)
	if err != nil {
		return nil, err
	}
	left := req.Layers
	for _, v := range chain[1:] {
		n := slices.Index(left, v.Name)
		if n < 0 {
			return nil, Fail(client.CodeDamaged, "volume %s reads through %s, which is none of the layers below %v", name, v.Name, req.Layers)
		}
		left = left[n+1:]
	}
	if !req.Writable {
		return chain, nil
	}
	switch v := chain[0]; {
	case r.readOnly() || v.ReadOnly:
		return nil, Fail(client.CodeUnsupported, "volume %s cannot be written to", name)
	case v.Active:
		return nil, Fail(client.CodeInUse, "volume %s is active", name)
	}
	return chain, m.childless(ctx, r, name, "")
}

// holds makes a raw volume that holds an image one of the image's format, if that is
// asked for. QEMU opens nothing else, whatever the image says; one that says so is refused.
func holds(v *client.Volume, req client.ExportRequest) error {
	switch {
	case req.As == "" || req.As == v.Format:
		return nil
	case req.As != client.Qcow2 || v.Format != client.Raw || req.Writable:
		return Fail(client.CodeBadRequest, "volume %s cannot be exported as %s", v.Name, req.As)
	}
	h, damage, err := examine(v.Path)
	if err != nil {
		return err
	}
	if damage == nil && h.Backing != "" {
		damage = fmt.Errorf("it is based on another, %q", h.Backing)
	}
	if damage != nil {
		return Fail(client.CodeDamaged, "volume %s: the image in it: %v", v.Name, damage)
	}
	v.Format = req.As
	return nil
}

// examine reads an image's header, and says what is wrong with it for QEMU to open it.
func examine(path string) (h qemuimg.Header, damage, err error) {
	f, err := os.Open(path)
	if err != nil {
		return h, nil, err
	}
	defer f.Close()
	h, damage = qemuimg.ReadHeader(f)
	if damage == nil {
		damage = h.Usable()
	}
	return h, damage, nil
}

// lend runs the program that serves a chain of images.
func (m *Manager) lend(ctx context.Context, chain []client.Volume, writable bool, ready func(client.Export) error) error {
	l, file, err := m.listen()
	if err != nil {
		return err
	}
	defer l.Close() // with whoever is still in the queue
	defer file.Close()
	var layers []qemuimg.Layer
	path := l.Addr().String()
	out := client.Export{ID: filepath.Base(path), Socket: path, Layers: []string{}}
	for _, v := range chain {
		layers = append(layers, qemuimg.Layer{Path: v.Path, Format: v.Format, Block: v.Block})
		out.Layers = append(out.Layers, v.Name)
	}
	layers[0].Direct = writable && takesDirect(chain[0].Path)
	cmd, err := qemuimg.Serve(layers, writable, file)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	m.loan(out.ID, func() { cancel(errReturned) })
	defer m.loan(out.ID, nil)
	ended := make(chan error, 1)
	go func() {
		_, err := m.cfg.Tools.Run(ctx, cmd)
		ended <- err
	}()
	if err := ready(out); err != nil {
		cancel(nil)
		return errors.Join(err, m.tidy(ctx, chain[0], writable, <-ended))
	}
	err = <-ended
	if why := context.Cause(ctx); why != nil && !errors.Is(why, errReturned) {
		err = why // it is no matter how the program took it
	}
	return m.tidy(ctx, chain[0], writable, err)
}

// takesDirect tells whether a file can be opened past the page cache, which not every
// file system of a repository's may know.
func takesDirect(path string) bool {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECT|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	return unix.Close(fd) == nil
}

// errReturned is the end of an export that whoever borrowed asks for: whether it went
// well, the program says.
var errReturned = fmt.Errorf("the borrower ends it: %w", context.Canceled)

// loan remembers how to end an export, or forgets it.
func (m *Manager) loan(id string, end context.CancelFunc) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if end == nil {
		delete(m.loans, id)
		return
	}
	m.loans[id] = end
}

// EndExport ends an export as if its request had. One that is not known has ended.
func (m *Manager) EndExport(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if end := m.loans[id]; end != nil {
		end()
	}
}

// tidy gives back what a program that did not end by itself may have left in an image.
func (m *Manager) tidy(ctx context.Context, v client.Volume, writable bool, err error) error {
	if err == nil || !writable || v.Format != client.Qcow2 {
		return err
	}
	_, terr := m.cfg.Tools.Run(context.WithoutCancel(ctx), qemuimg.Tidy(v.Path))
	return errors.Join(err, terr)
}

// listen makes a socket nobody knows of yet, and a second descriptor of it.
func (m *Manager) listen() (*net.UnixListener, *os.File, error) {
	if err := os.MkdirAll(m.cfg.ExportDir, 0o750); err != nil {
		return nil, nil, err
	}
	path := filepath.Join(m.cfg.ExportDir, rand.Text())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, nil, fmt.Errorf("socket of an export: %w", err)
	}
	file, err := l.File()
	if err == nil {
		err = os.Chmod(path, exportMode)
	}
	if err != nil {
		return nil, nil, errors.Join(err, l.Close())
	}
	return l, file, nil
}

// clearExports removes sockets of a former hostd.
func (m *Manager) clearExports() {
	left, err := os.ReadDir(m.cfg.ExportDir)
	if err != nil {
		return // there is none
	}
	for _, e := range left {
		if err := os.Remove(filepath.Join(m.cfg.ExportDir, e.Name())); err != nil {
			m.cfg.Log.Warn("socket-left", "name", e.Name(), "err", err)
		}
	}
}
