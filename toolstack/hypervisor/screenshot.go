package hypervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// maxPicture bounds a screenshot: an 8K screen of three bytes a pixel.
const maxPicture = 100 << 20

// Screenshot implements Devices.
func (l *Libvirt) Screenshot(ctx context.Context, uuid string) ([]byte, error) {
	var picture bounded
	err := l.job(ctx, "screenshot", uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) error {
		_, err := c.DomainScreenshot(d, &picture, 0, 0)
		return err
	})
	if err != nil {
		return nil, err
	}
	if bytes.HasPrefix(picture.Bytes(), []byte("\x89PNG")) {
		return picture.Bytes(), nil
	}
	screen, err := readPPM(&picture)
	if err != nil {
		return nil, fmt.Errorf("screenshot %s: %w", uuid, err)
	}
	var out bytes.Buffer
	err = png.Encode(&out, screen)
	return out.Bytes(), err
}

// bounded keeps as much as a picture may have. It swallows the rest: an error would
// leave the connection's reader waiting for the stream's end.
type bounded struct{ bytes.Buffer }

func (b *bounded) Write(p []byte) (int, error) {
	if b.Len()+len(p) <= maxPicture {
		return b.Buffer.Write(p)
	}
	return len(p), nil
}

// readPPM reads the binary portable pixmap QEMU writes.
func readPPM(r io.Reader) (image.Image, error) {
	var kind string
	var width, height, depth int
	if _, err := fmt.Fscanf(r, "%s\n%d %d\n%d\n", &kind, &width, &height, &depth); err != nil {
		return nil, fmt.Errorf("pixmap: %w", err)
	}
	if kind != "P6" || depth != 255 || width < 1 || height < 1 || width > maxPicture || height > maxPicture || 3*width*height > maxPicture {
		return nil, fmt.Errorf("pixmap %q of %d by %d with %d colours", kind, width, height, depth)
	}
	pixels := make([]byte, 3*width*height)
	if _, err := io.ReadFull(r, pixels); err != nil {
		return nil, errors.Join(errors.New("pixmap is cut short"), err)
	}
	screen := image.NewRGBA(image.Rect(0, 0, width, height))
	for i := range width * height {
		copy(screen.Pix[4*i:], pixels[3*i:3*i+3])
		screen.Pix[4*i+3] = 0xff
	}
	return screen, nil
}
