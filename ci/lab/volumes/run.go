package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"cairn/init/hostd/client"
)

const (
	sr    = "0ab7a2c5-1c8c-4f2b-9c7a-00000000000a"
	other = "0ab7a2c5-1c8c-4f2b-9c7a-00000000000b"
	mib   = 1 << 20
)

// life is one run.
type life struct {
	*client.Client
	ctx    context.Context
	config client.RepositoryConfig
	temp   string
}

func run(ctx context.Context, kind, device, step string) error {
	temp, err := os.MkdirTemp("/tmp", "volumes")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temp)
	l := life{client.New(client.Socket), ctx, client.RepositoryConfig{Type: kind, Config: map[string]string{"device": device}}, temp}
	defer l.Close()
	do, ok := map[string]func() error{
		"format": l.format, "create": l.create, "write": l.write, "snapshot": l.snapshot, "grow": l.grow, "commit": l.commit, "coalesce": l.coalesce,
		"copy": l.copy, "reattach": l.again, "full": l.full, "erase": l.erase,
	}[step]
	if !ok {
		return fmt.Errorf("no step is named %q", step)
	}
	begin := time.Now()
	if err := do(); err != nil {
		return fmt.Errorf("%s: %w", step, err)
	}
	fmt.Printf("%-10s %6d ms\n", step, time.Since(begin).Milliseconds())
	return nil
}

func want(err error, code string) error {
	var e *client.Error
	if errors.As(err, &e) && e.Code == code {
		return nil
	}
	return fmt.Errorf("answered %w, want %s", err, code)
}

func (l life) format() error {
	found, err := l.Probe(l.ctx, client.RepositoryConfig{Type: l.config.Type})
	if err != nil || len(found) != 1 || found[0].UUID != "" || found[0].Config["device"] != l.config.Config["device"] {
		return fmt.Errorf("probe finds %+v, %w", found, err)
	}
	for range 2 {
		if _, err := l.FormatRepository(l.ctx, sr, l.config); err != nil {
			return err
		}
	}
	if _, err := l.FormatRepository(l.ctx, other, l.config); want(err, client.CodeInUse) != nil {
		return want(err, client.CodeInUse)
	}
	_, err = l.AttachRepository(l.ctx, sr, l.config)
	return err
}

func (l life) create() error {
	_, err := l.CreateVolume(l.ctx, sr, "base", client.VolumeSpec{Size: 64 * mib, Format: client.Qcow2, Note: "note"})
	if err != nil {
		return err
	}
	_, err = l.CreateVolume(l.ctx, sr, "raw", client.VolumeSpec{Size: 8 * mib, Format: client.Raw})
	return err
}

// content is what a guest writes: a pattern that differs by place.
func content(seed byte, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = seed + byte(i/4096)
	}
	return b
}

// fill puts bytes into an active volume, as a guest would.
func (l life) fill(name string, text []byte) error {
	v, err := l.ActivateVolume(l.ctx, sr, name)
	if err != nil {
		return err
	}
	file := filepath.Join(l.temp, "in")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return err
	}
	out, err := exec.CommandContext(l.ctx, "/usr/bin/qemu-img", "convert", "-n", "-f", "raw", "-O", string(v.Format), file, v.Path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("fill %s: %w: %s", name, err, out)
	}
	_, err = l.DeactivateVolume(l.ctx, sr, name)
	return err
}

// reads checks what a volume reads from its begin.
func (l life) reads(name string, text []byte) error {
	v, err := l.ActivateVolume(l.ctx, sr, name)
	if err != nil {
		return err
	}
	file := filepath.Join(l.temp, "out")
	out, err := exec.CommandContext(l.ctx, "/usr/bin/qemu-img", "convert", "-f", string(v.Format), "-O", "raw", v.Path, file).CombinedOutput()
	if err != nil {
		return fmt.Errorf("read %s: %w: %s", name, err, out)
	}
	got, err := os.ReadFile(file)
	if err != nil || !bytes.HasPrefix(got, text) {
		return fmt.Errorf("%s reads something else than was written, %w", name, err)
	}
	if len(bytes.Trim(got[len(text):], "\x00")) > 0 {
		return fmt.Errorf("%s has bytes nobody wrote", name)
	}
	if _, err = l.DeactivateVolume(l.ctx, sr, name); err != nil {
		return err
	}
	c, err := l.CheckVolume(l.ctx, sr, name)
	if err != nil || c.Errors != 0 {
		return fmt.Errorf("check of %s: %+v, %w", name, c, err)
	}
	return nil
}

func (l life) write() error {
	if err := l.reads("raw", nil); err != nil {
		return err
	}
	return errors.Join(l.fill("base", content(1, 8*mib)), l.reads("base", content(1, 8*mib)))
}

func (l life) snapshot() error {
	if _, err := l.CreateVolume(l.ctx, sr, "top", client.VolumeSpec{Format: client.Qcow2, Backing: "base"}); err != nil {
		return err
	}
	return l.reads("top", content(1, 8*mib))
}

func (l life) grow() error {
	_, err := l.ResizeVolume(l.ctx, sr, "top", 128*mib)
	return errors.Join(err, l.fill("top", content(7, 16*mib)), l.reads("base", content(1, 8*mib)))
}

func (l life) commit() error {
	_, err := l.CreateVolume(l.ctx, sr, "leaf", client.VolumeSpec{Format: client.Qcow2, Backing: "top"})
	if err != nil {
		return err
	}
	return errors.Join(l.CommitVolume(l.ctx, sr, "top", nil), l.CommitVolume(l.ctx, sr, "top", nil))
}

func (l life) coalesce() error {
	if err := l.RebaseVolume(l.ctx, sr, "leaf", "base"); err != nil {
		return err
	}
	return errors.Join(l.DeleteVolume(l.ctx, sr, "top"), l.reads("leaf", content(7, 16*mib)), l.reads("base", content(7, 16*mib)))
}

func (l life) copy() error {
	if err := l.CopyVolume(l.ctx, sr, "leaf", sr, "copy", nil); err != nil {
		return err
	}
	return l.reads("copy", content(7, 16*mib))
}

// again detaches, which an active volume keeps from happening, and attaches.
func (l life) again() error {
	if _, err := l.ActivateVolume(l.ctx, sr, "leaf"); err != nil {
		return err
	}
	if err := want(l.DetachRepository(l.ctx, sr), client.CodeInUse); err != nil {
		return err
	}
	if _, err := l.DeactivateVolume(l.ctx, sr, "leaf"); err != nil {
		return err
	}
	if err := l.DetachRepository(l.ctx, sr); err != nil {
		return err
	}
	if _, err := l.AttachRepository(l.ctx, sr, l.config); err != nil {
		return err
	}
	v, err := l.Volume(l.ctx, sr, "leaf")
	if err != nil || v.Backing != "base" || v.VirtualSize != 128*mib || v.Active {
		return fmt.Errorf("leaf is %+v, %w", v, err)
	}
	return l.reads("leaf", content(7, 16*mib))
}

// full asks for more than there is where volumes take their full size.
func (l life) full() error {
	if l.config.Type != client.TypeLVM {
		return nil
	}
	_, err := l.CreateVolume(l.ctx, sr, "big", client.VolumeSpec{Size: 1 << 40, Format: client.Qcow2})
	return want(err, client.CodeNoSpace)
}

func (l life) erase() error {
	if err := l.EraseRepository(l.ctx, sr, l.config); err != nil {
		return err
	}
	found, err := l.Probe(l.ctx, l.config)
	if err != nil || len(found) != 1 || found[0].UUID != "" {
		return fmt.Errorf("probe finds %+v, %w", found, err)
	}
	return nil
}
