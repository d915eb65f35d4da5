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

// Screenshot implements Devices. It has a connection of its own, because neither
// libvirtd nor the library ever ends the stream that the picture comes in.
func (l *Libvirt) Screenshot(ctx context.Context, uuid string) ([]byte, error) {
	d, err := domainRef(uuid)
	if err != nil {
		return nil, err
	}
	var picture bounded
	err = l.owner.apart(ctx, l.work(), "screenshot "+uuid, func(c *golibvirt.Libvirt) error {
		_, err := c.DomainScreenshot(d, &picture, 0, 0)
		var answer golibvirt.Error
		if picture.Len() > 0 && !errors.As(err, &answer) {
			// The library looks for the picture's type behind the picture, where there is
			// none. Whether the picture is whole is for its decoder to say.
			return nil
		}
		return err
	})
	if errors.Is(err, ErrUnsupported) {
		err = fmt.Errorf("%w: %w", ErrNotFound, err)
	}
	if err != nil {
		return nil, err
	}
	screen, err := decodePicture(picture.Bytes())
	if err != nil {
		return nil, fmt.Errorf("screenshot %s: %w", uuid, err)
	}
	var out bytes.Buffer
	err = png.Encode(&out, screen)
	return out.Bytes(), err
}

// decodePicture reads either of the formats QEMU makes.
func decodePicture(b []byte) (image.Image, error) {
	if bytes.HasPrefix(b, []byte("\x89PNG")) {
		return png.Decode(bytes.NewReader(b))
	}
	return readPPM(bytes.NewReader(b))
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
