//go:build lab

package main

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/png"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"cairn/ci/lab/demo"
	"cairn/ci/lab/foreign"
	"cairn/ci/lab/life"
	"cairn/toolstack/client"
)

const (
	// screens is where pictures of guests' screens are kept.
	screens = "../../.build/labtest"
	// lookEvery is how often a screen is looked at: nothing says that it changed.
	lookEvery = time.Second
)

// TestDevForeign boots Debian's installer from a CD of an ISO library, by UEFI and
// by BIOS, to its first screen: the dialog is on the serial console, and the picture
// of the screen, which is kept, has its colours.
func TestDevForeign(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
	defer cancel()
	d, dir := fresh(t)
	a := life.API{T: t, Client: d.login()}
	a.Repository(ctx, "file", map[string]string{"location": "/state/sr/disks"})
	disc := d.disc(ctx, a, dir, func(file string) error { return foreign.Disc(ctx, "../..", file) })
	for _, firmware := range []string{"uefi", "bios"} {
		t.Run(firmware, func(t *testing.T) {
			(&instance{T: t}).install(ctx, life.API{T: t, Client: a.Client}, firmware, disc)
		})
	}
}

// install makes a VM as a user would who installs Debian.
func (d *instance) install(ctx context.Context, a life.API, firmware, disc string) {
	d.Helper()
	g := &demo.Guest{Name: "Debian by " + firmware}
	g.Ref = a.Ref(ctx, "VM.clone", a.First(ctx, "VM.get_by_name_label", "Debian Trixie 13"), g.Name)
	a.Call(ctx, nil, "VM.provision", g.Ref)
	a.Call(ctx, nil, "VM.set_HVM_boot_params", g.Ref, map[string]string{"firmware": firmware, "order": "cd"})
	drive := a.Drive(ctx, g.Ref, "OpaqueRef:NULL", "3", "CD")
	a.Call(ctx, nil, "VBD.insert", drive, disc)
	g = demo.Attach(a.Client, g)
	d.must(g.Start(ctx))
	tty := life.Sit(ctx, d, g)
	_, err := tty.Text(ctx, "Select a language")
	d.must(err)
	picture, err := dialog(ctx, a.Client, g)
	d.must(os.MkdirAll(screens, 0o755))
	d.must(os.WriteFile(filepath.Join(screens, "debian-installer-"+firmware+".png"), picture, 0o644))
	d.must(err)
	d.must(g.HardShutdown(ctx))
	d.must(g.Destroy(ctx))
}

// dialog waits until a guest's screen shows a dialog and keeps still. It returns
// the last picture in any case.
func dialog(ctx context.Context, c *client.Client, g *demo.Guest) (last []byte, err error) {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for range 60 {
		picture, err := look(ctx, c, g)
		if err != nil {
			return last, err
		}
		screen, err := png.Decode(bytes.NewReader(picture))
		if err != nil {
			return picture, err
		}
		if bytes.Equal(picture, last) && isDialog(screen) {
			return picture, nil
		}
		last = picture
		select {
		case <-tick.C:
		case <-ctx.Done():
			return last, ctx.Err()
		}
	}
	return last, errors.New("the screen shows no dialog that keeps still")
}

// look takes a picture of a guest's screen.
func look(ctx context.Context, c *client.Client, g *demo.Guest) ([]byte, error) {
	body, err := c.Get(ctx, "/vncsnapshot", url.Values{"ref": {g.Ref}})
	if err != nil {
		return nil, err
	}
	defer body.Close()
	return io.ReadAll(body)
}

// isDialog tells the installer's dialogs by their colours from all that comes before
// them: a grey window on blue, and in it something that is chosen, on red.
func isDialog(screen image.Image) bool {
	grey, blue, red := color.RGBA{170, 170, 170, 255}, color.RGBA{0, 0, 170, 255}, color.RGBA{170, 0, 0, 255}
	count := map[color.RGBA]int{}
	b := screen.Bounds()
	for y := b.Min.Y; y < b.Max.Y; y++ {
		for x := b.Min.X; x < b.Max.X; x++ {
			count[color.RGBAModel.Convert(screen.At(x, y)).(color.RGBA)]++
		}
	}
	all := b.Dx() * b.Dy()
	return count[grey] > all/2 && count[blue] > all/50 && count[red] > all/500
}
