package hypervisor

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"net"
)

// fakeSaved is what a file holds after Save.
type fakeSaved struct {
	spec  Spec
	sizes map[string]int64
	torn  bool
}

// Snapshot implements Devices.
func (f *Fake) Snapshot(ctx context.Context, uuid string, overlays []Overlay) error {
	return f.try(ctx, "Snapshot", uuid, func(d *fakeDomain) error {
		if err := checkOverlays(Hardware{Disks: d.spec.Disks}, overlays); err != nil {
			return err
		}
		for _, o := range overlays {
			disk, err := d.disk(o.ID)
			if err != nil {
				return err
			}
			disk.Source = o.Source.clone()
		}
		return nil
	})
}

// Commit implements Devices.
func (f *Fake) Commit(ctx context.Context, uuid, id string, progress func(float64)) error {
	err := f.try(ctx, "Commit", uuid, func(d *fakeDomain) error {
		disk, err := d.disk(id)
		if err != nil {
			return err
		}
		if disk.Source == nil || disk.Source.Backing == nil {
			return fmt.Errorf("disk %s has nothing beneath: %w", id, ErrBadState)
		}
		disk.Source = disk.Source.Backing
		return nil
	})
	if err == nil && progress != nil {
		progress(1)
	}
	return err
}

// Save implements Devices.
func (f *Fake) Save(ctx context.Context, uuid, path string) error {
	return f.try(ctx, "Save", uuid, func(d *fakeDomain) error {
		if err := checkPath("file", path); err != nil {
			return err
		}
		f.saved[path] = fakeSaved{spec: d.spec, sizes: d.sizes}
		f.end(uuid, BySave)
		return nil
	})
}

// Whole implements Devices.
func (f *Fake) Whole(ctx context.Context, uuid, path string) (bool, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failure(ctx, "Whole"); err != nil {
		return false, err
	}
	s, there := f.saved[path]
	return there && !s.torn && s.spec.UUID == uuid, nil
}

// Restore implements Devices.
func (f *Fake) Restore(ctx context.Context, path string, spec Spec, paused bool) error {
	if err := spec.Check(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failure(ctx, "Restore"); err != nil {
		return err
	}
	s, ok := f.saved[path]
	switch {
	case !ok || s.torn || s.spec.UUID != spec.UUID:
		return fmt.Errorf("restore %s: %s: %w", spec.UUID, path, ErrNotFound)
	case f.domains[spec.UUID] != nil:
		return fmt.Errorf("restore %s: %w", spec.UUID, ErrExists)
	}
	d := &fakeDomain{spec: resourced(s.spec, spec), sizes: s.sizes, state: Running}
	if paused {
		d.state = Paused
	}
	f.domains[spec.UUID] = d
	f.events.publish(Event{Kind: Started, UUID: spec.UUID})
	return nil
}

// resourced is a saved spec on what the new one names.
func resourced(saved, spec Spec) Spec {
	s := saved.clone()
	s.Title = spec.Title
	fresh := Hardware{Disks: spec.clone().Disks, NICs: spec.NICs}
	for i, d := range s.Disks {
		if n, ok := fresh.Disk(d.ID); ok {
			s.Disks[i].Source = n.Source
		}
	}
	for i, n := range s.NICs {
		if m, ok := fresh.NIC(n.ID); ok {
			s.NICs[i].Tap, s.NICs[i].Bridge, s.NICs[i].LinkDown = m.Tap, m.Bridge, m.LinkDown
		}
	}
	return s
}

// Erase implements Devices.
func (f *Fake) Erase(ctx context.Context, uuid string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.failure(ctx, "Erase"); err != nil {
		return err
	}
	if f.domains[uuid] != nil {
		return fmt.Errorf("erase %s: %w", uuid, ErrBadState)
	}
	return nil
}

// Size of a fake guest's screen.
const (
	fakeWidth  = 64
	fakeHeight = 48
)

// Screenshot implements Devices.
func (f *Fake) Screenshot(ctx context.Context, uuid string) ([]byte, error) {
	var picture bytes.Buffer
	err := f.try(ctx, "Screenshot", uuid, func(d *fakeDomain) error {
		if !d.spec.Graphics {
			return fmt.Errorf("graphics: %w", ErrNotFound)
		}
		screen := image.NewRGBA(image.Rect(0, 0, fakeWidth, fakeHeight))
		for i := range fakeWidth {
			screen.Set(i, i*fakeHeight/fakeWidth, color.White)
		}
		return png.Encode(&picture, screen)
	})
	return picture.Bytes(), err
}

// DialVNC implements Devices.
func (f *Fake) DialVNC(ctx context.Context, uuid string) (net.Conn, error) {
	var ours net.Conn
	err := f.try(ctx, "DialVNC", uuid, func(d *fakeDomain) error {
		if !d.spec.Graphics {
			return fmt.Errorf("graphics: %w", ErrNotFound)
		}
		var theirs net.Conn
		ours, theirs = ttyPair()
		d.viewers = append(d.viewers, theirs)
		go func() {
			defer theirs.Close()
			_ = serveRFB(theirs, uuid)
		}()
		return nil
	})
	return ours, err
}

// serveRFB is as much of RFC 6143 as a viewer needs to show a screen: version 3.8,
// no authentication, raw pixels.
func serveRFB(c net.Conn, name string) error {
	ask := func(say []byte, answer int) error {
		if _, err := c.Write(say); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, answer))
		return err
	}
	if err := ask([]byte("RFB 003.008\n"), 12); err != nil {
		return err
	}
	if err := ask([]byte{1, 1}, 1); err != nil { // one security type: none
		return err
	}
	if err := ask([]byte{0, 0, 0, 0}, 1); err != nil { // SecurityResult, ClientInit
		return err
	}
	hello := []byte{0, fakeWidth, 0, fakeHeight, 32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0, 0, 0, 0, byte(len(name))}
	if _, err := c.Write(append(hello, name...)); err != nil {
		return err
	}
	for {
		if err := answerRFB(c); err != nil {
			return err
		}
	}
}

// bodies of the client's messages behind their first byte.
var rfbBodies = map[byte]int{0: 19, 2: 3, 3: 9, 4: 7, 5: 5, 6: 7}

func answerRFB(c net.Conn) error {
	kind := make([]byte, 1)
	if _, err := io.ReadFull(c, kind); err != nil {
		return err
	}
	size, known := rfbBodies[kind[0]]
	if !known {
		return fmt.Errorf("rfb: message %d", kind[0])
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(c, body); err != nil {
		return err
	}
	switch kind[0] {
	case 2: // encodings
		return skip(c, 4*(int64(body[1])<<8|int64(body[2])))
	case 6: // clipboard
		return skip(c, int64(body[3])<<24|int64(body[4])<<16|int64(body[5])<<8|int64(body[6]))
	case 3: // the screen is wanted: one raw rectangle
		update := []byte{0, 0, 0, 1, 0, 0, 0, 0, 0, fakeWidth, 0, fakeHeight, 0, 0, 0, 0}
		_, err := c.Write(append(update, make([]byte, 4*fakeWidth*fakeHeight)...))
		return err
	}
	return nil
}

func skip(r io.Reader, n int64) error {
	_, err := io.CopyN(io.Discard, r, n)
	return err
}
