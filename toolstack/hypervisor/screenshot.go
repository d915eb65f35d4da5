package hypervisor

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// maxPicture bounds a screenshot: an 8K screen of three bytes a pixel.
const maxPicture = 100 << 20

// Screenshot implements Devices. QEMU writes the picture beside its VNC socket, where
// the caller may read and remove it. libvirt would hand it out as a stream, at whose
// end the library can wait for good.
func (l *Libvirt) Screenshot(ctx context.Context, uuid string) ([]byte, error) {
	if _, err := domainRef(uuid); err != nil { // before it becomes part of a path
		return nil, err
	}
	name := l.cfg.graphicsPath(uuid) + "-" + rand.Text() + ".ppm"
	outside := filepath.Join(l.cfg.Root, name)
	defer os.Remove(outside)
	if err := l.screendump(ctx, uuid, name); err != nil {
		return nil, err
	}
	f, err := os.Open(outside)
	if err != nil {
		return nil, fmt.Errorf("screenshot %s: %w", uuid, err)
	}
	defer f.Close()
	screen, err := readPPM(bufio.NewReader(f))
	if err != nil {
		return nil, fmt.Errorf("screenshot %s: %w", uuid, err)
	}
	var out bytes.Buffer
	err = png.Encode(&out, screen)
	return out.Bytes(), err
}

func (l *Libvirt) screendump(ctx context.Context, uuid, file string) error {
	command, err := json.Marshal(map[string]any{"execute": "screendump", "arguments": map[string]string{"filename": file}})
	if err != nil {
		return err
	}
	var reply string
	err = l.job(ctx, "screenshot", uuid, func(c *golibvirt.Libvirt, d golibvirt.Domain) (err error) {
		reply, err = c.QEMUDomainMonitorCommand(d, string(command), 0)
		return err
	})
	if err != nil {
		return err
	}
	var answer struct {
		Error *struct {
			Class string `json:"class"`
			Desc  string `json:"desc"`
		} `json:"error"`
	}
	if err := json.Unmarshal([]byte(reply), &answer); err != nil {
		return fmt.Errorf("screenshot %s: %w", uuid, err)
	}
	if answer.Error != nil { // nothing to take a picture of, as a rule
		return fmt.Errorf("screenshot %s: %w: %s", uuid, ErrNotFound, answer.Error.Desc)
	}
	return nil
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
