package hostd

import (
	"fmt"
	"os"
	"strings"
	"sync"

	"cairn/init/config"
	"cairn/init/console"
	"cairn/init/network"
	"cairn/init/storage"
)

// banner remembers what is on the screens.
type banner struct {
	mu    sync.Mutex
	shown console.Info
	url   string
}

// networkChanged is the network manager's callback.
func (h *Host) networkChanged(network.Status) {
	h.generate()
	h.refreshBanner()
}

// refreshBanner shows the banner again if it would look different.
func (h *Host) refreshBanner() {
	info := h.bannerInfo()
	h.banner.mu.Lock()
	defer h.banner.mu.Unlock()
	text := console.Text(info)
	if text == console.Text(h.banner.shown) {
		return
	}
	h.banner.shown = info
	h.System.Show(console.Screen(info), text)
	if url := info.URL(); url != "" && url != h.banner.url {
		h.Log.With("component", "console").Info("banner", "url", url, "host", info.Hostname, "product", info.Product)
		h.banner.url = url
	}
}

func (h *Host) bannerInfo() console.Info {
	c := h.keeper.get()
	status := h.network.Status()
	info := console.Info{
		Product:   "Cairn " + h.productVersion(),
		Hostname:  c.Document.Hostname,
		Interface: status.Link.Name,
		Mode:      string(status.Mode),
		Emulation: c.Document.Emulation == config.EmulationAllowed,
		Login:     c.Document.Root.PasswordHash != "",
	}
	if status.Address.IsValid() && status.Err == nil {
		info.Address = status.Address.Addr().String()
	}
	for _, p := range c.Problems {
		info.Problems = append(info.Problems, fmt.Sprintf("configuration from %s, line %d: %s", p.Source, p.Line, p.Message))
	}
	if s := h.storage.State; s.Kind != storage.Disk {
		info.Problems = append(info.Problems, fmt.Sprintf("nothing is kept over a reboot: %v", s.Err))
	}
	select {
	case <-h.kvm.loaded:
		info.NoKVM = h.noKVM()
	default: // not known yet
	}
	return info
}

// productVersion is VERSION_ID of the image's os-release.
func (h *Host) productVersion() string {
	b, err := os.ReadFile(h.Paths.OSRelease)
	if err != nil {
		return "unknown"
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "VERSION_ID="); ok {
			return strings.Trim(v, `"'`)
		}
	}
	return "unknown"
}
