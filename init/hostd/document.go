package hostd

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"cairn/init/config"
	"cairn/init/hostd/client"
)

// keeper holds the document in force.
type keeper struct {
	mu     sync.Mutex
	config client.Config
	etc    sync.Mutex // held while files are derived from it
}

func (k *keeper) get() client.Config {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.config
}

func (k *keeper) set(c client.Config) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.config = c
}

func (h *Host) store() config.Store {
	return config.Store{FS: h.Files, Dir: h.Paths.Config}
}

// loadConfig finds the document in force and keeps it on STATE.
func (h *Host) loadConfig() {
	choice := config.Choose(h.candidates())
	c := client.Config{Document: choice.Document, Text: string(choice.Text), Source: string(choice.Source)}
	for _, r := range choice.Refusals {
		h.Log.Error("config-invalid", "source", r.Source, "line", r.Line, "err", r.Message)
		c.Problems = append(c.Problems, client.ConfigProblem{Source: string(r.Source), Line: r.Line, Message: r.Message})
	}
	h.keeper.set(c)
	h.Log.Info("config-loaded", "source", choice.Source, "hostname", choice.Document.Hostname)
	if choice.Store {
		if err := h.store().Put(choice.Text); err != nil {
			h.Log.Error("config-not-stored", "err", err)
		}
	}
}

// candidates asks the sources in their order. Media are looked for only where
// STATE has no sound document: that costs a read of every block device. Where it
// has one, a medium with a newer one is noticed later, by lateMedia.
func (h *Host) candidates() []config.Candidate {
	found, err := h.store().Candidates()
	if err != nil {
		h.Log.Error("config-unreadable", "source", config.SourceState, "err", err)
	}
	sound := func(c config.Candidate) bool { _, err := config.Parse(c.Text); return err == nil }
	if !slices.ContainsFunc(found, sound) {
		if text, ok, err := h.System.Media(); err != nil {
			h.Log.Error("config-unreadable", "source", config.SourceMedia, "err", err)
		} else if ok {
			found = append(found, config.Candidate{Source: config.SourceMedia, Text: text})
		}
	}
	if text, ok := h.fromSMBIOS(); ok {
		found = append(found, config.Candidate{Source: config.SourceSMBIOS, Text: text})
	}
	return found
}

func (h *Host) fromSMBIOS() ([]byte, bool) {
	table, err := os.ReadFile(filepath.Join(h.Paths.Sys, "firmware/dmi/tables/DMI"))
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			h.Log.Error("config-unreadable", "source", config.SourceSMBIOS, "err", err)
		}
		return nil, false
	}
	return config.FromSMBIOS(table)
}

// replace makes text the document in force: checked, durable, then applied.
func (h *Host) replace(text []byte) (client.Config, error) {
	doc, err := config.Parse(text)
	if err != nil {
		return client.Config{}, err
	}
	h.keeper.mu.Lock()
	if err := h.store().Put(text); err != nil {
		h.keeper.mu.Unlock()
		return client.Config{}, err
	}
	c := client.Config{Document: doc, Text: string(text), Source: string(config.SourceState)}
	h.keeper.config = c
	h.keeper.mu.Unlock()
	h.Log.Info("config-changed", "hostname", doc.Hostname)
	h.generate()
	h.network.Apply(h.settings())
	return c, nil
}
