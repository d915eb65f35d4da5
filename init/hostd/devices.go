package hostd

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"cairn/init/config"
	"cairn/init/hostd/client"
)

// watchDevices looks for power buttons and for a configuration medium each time
// devices appear.
func (h *Host) watchDevices(ctx context.Context) {
	err := h.System.Devices(ctx, func() {
		h.scanButtons(ctx)
		h.lateMedia()
	})
	if err != nil && ctx.Err() == nil {
		h.Log.Error("devices-failed", "err", err)
	}
	h.button.readers.Wait()
}

// lateMedia takes the document of a medium that was not there at start, as USB
// takes seconds to appear: any sound one while the host runs on defaults, else
// one of a higher revision. So whoever can reach the machine can mend it.
func (h *Host) lateMedia() {
	text, ok, err := h.System.Media()
	if err != nil {
		h.Log.Error("config-unreadable", "source", config.SourceMedia, "err", err)
	}
	if !ok || h.button.refused == string(text) {
		return
	}
	if c := h.keeper.get(); c.Source != string(config.SourceDefault) && !config.Newer(text, c.Document) {
		return
	}
	_, err = h.replace(text)
	var problems config.Problems
	switch {
	case errors.As(err, &problems):
		h.button.refused = string(text)
		for _, p := range problems {
			h.Log.Error("config-invalid", "source", config.SourceMedia, "line", p.Line, "err", p.Message)
		}
	case err != nil:
		h.Log.Error("config-not-stored", "err", err)
	}
}

// button holds the open power buttons; keyboards may have one too.
type button struct {
	mu      sync.Mutex
	open    map[string]bool
	readers sync.WaitGroup
	refused string // the medium's text that was refused last
}

// From linux/input-event-codes.h.
const (
	evKey    = 1
	keyPower = 116
	pressed  = 1
	// eventSize is that of struct input_event on 64-bit machines: two 64-bit
	// halves of the time, type, code, value.
	eventSize = 24
)

// scanButtons starts to read every input device with a power key that is not
// being read yet.
func (h *Host) scanButtons(ctx context.Context) {
	paths, err := filepath.Glob(filepath.Join(h.Paths.Input, "event*"))
	if err != nil {
		return // the pattern is a constant
	}
	h.button.mu.Lock()
	defer h.button.mu.Unlock()
	if h.button.open == nil {
		h.button.open = map[string]bool{}
	}
	for _, p := range paths {
		caps := filepath.Join(h.Paths.Sys, "class/input", filepath.Base(p), "device/capabilities/key")
		if !h.button.open[p] && hasKey(caps, keyPower) {
			h.readButton(ctx, p)
		}
	}
}

// hasKey reads a capability bitmap: hexadecimal words, the highest first.
func hasKey(caps string, key int) bool {
	b, err := os.ReadFile(caps)
	if err != nil {
		return false
	}
	words := strings.Fields(string(b))
	i := len(words) - 1 - key/64
	if i < 0 {
		return false
	}
	n, err := strconv.ParseUint(words[i], 16, 64)
	return err == nil && n&(1<<(key%64)) != 0
}

func (h *Host) readButton(ctx context.Context, path string) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		if !errors.Is(err, fs.ErrNotExist) {
			h.Log.Warn("power-button-failed", "dev", path, "err", err)
		}
		return
	}
	h.Log.Info("power-button", "dev", path)
	h.button.open[path] = true
	stop := context.AfterFunc(ctx, func() { f.Close() })
	h.button.readers.Go(func() {
		h.buttonEvents(f)
		if stop() {
			f.Close()
		}
		h.button.mu.Lock()
		defer h.button.mu.Unlock()
		delete(h.button.open, path)
	})
}

// buttonEvents reads until the device goes away or is closed.
func (h *Host) buttonEvents(r io.Reader) {
	var e [eventSize]byte
	for {
		if _, err := io.ReadFull(r, e[:]); err != nil {
			return
		}
		kind, code := binary.LittleEndian.Uint16(e[16:]), binary.LittleEndian.Uint16(e[18:])
		if kind != evKey || code != keyPower || binary.LittleEndian.Uint32(e[20:]) != pressed {
			continue
		}
		if err := h.power(client.Poweroff, "button"); err != nil {
			h.Log.Error("power-failed", "err", err)
		}
	}
}
