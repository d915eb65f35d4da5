package storagetest

import (
	"bytes"
	"context"
	"maps"
	"slices"

	"cairn/init/hostd/client"
)

// Allocation implements storage.Hostd.
func (h *Hostd) Allocation(ctx context.Context, sr, name string) (client.Allocation, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	_, v, err := h.volume(ctx, sr, name)
	if err != nil {
		return client.Allocation{}, err
	}
	blocks := (v.VirtualSize + Cluster - 1) / Cluster
	a := client.Allocation{Size: v.VirtualSize, Bits: make([]byte, (blocks+7)/8)}
	for at := range blocks {
		if _, has := v.clusters[at]; has || v.Format == client.Raw {
			a.Bits[at/8] |= 0x80 >> (at % 8)
		}
	}
	return a, nil
}

// ChangeLogs implements storage.Hostd.
func (h *Hostd) ChangeLogs(ctx context.Context, sr string) ([]client.ChangeLog, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.repository(ctx, sr)
	if err != nil {
		return nil, err
	}
	all := []client.ChangeLog{}
	for _, name := range slices.Sorted(maps.Keys(m.logs)) {
		all = append(all, client.ChangeLog{Name: name})
	}
	return all, nil
}

// ReadChangeLog implements storage.Hostd.
func (h *Hostd) ReadChangeLog(ctx context.Context, sr, name string) ([]byte, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.repository(ctx, sr)
	if err != nil {
		return nil, err
	}
	if m.logs[name] == nil {
		return nil, refuse(client.CodeNotFound, "log "+name)
	}
	return bytes.Clone(m.logs[name]), nil
}

// WriteChangeLog implements storage.Hostd.
func (h *Hostd) WriteChangeLog(ctx context.Context, sr, name string, text []byte) error {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "write-log", sr, name); err != nil {
		return err
	}
	m, err := h.repository(ctx, sr)
	if err != nil {
		return err
	}
	if m.logs[name] != nil {
		return refuse(client.CodeConflict, "log "+name+" is there")
	}
	m.logs[name] = bytes.Clone(text)
	return nil
}

// DeleteChangeLog implements storage.Hostd.
func (h *Hostd) DeleteChangeLog(ctx context.Context, sr, name string) error {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "delete-log", sr, name); err != nil {
		return err
	}
	m, err := h.repository(ctx, sr)
	if err != nil {
		return err
	}
	delete(m.logs, name)
	return nil
}

// Tear changes a log behind everybody's back; nil removes it.
func (h *Hostd) Tear(sr, name string, text []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if m := h.attached[sr]; text == nil {
		delete(m.logs, name)
	} else {
		m.logs[name] = bytes.Clone(text)
	}
}
