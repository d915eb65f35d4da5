//go:build lab

package devhost

import (
	"os"
	"path/filepath"
	"testing"

	"cairn/init/hostd/client"
)

// TestHostdKeepsVolumes: hostd in its fence serves repositories below the caller's
// directory, with the real qemu-img.
func TestHostdKeepsVolumes(t *testing.T) {
	dir, l, c := Hostd(t)
	const sr = "0ab7a2c5-1c8c-4f2b-9c7a-00000000000a"
	ctx := t.Context()
	directory(t, c, sr, "/state/sr/one")
	_, err := c.CreateVolume(ctx, sr, "base", client.VolumeSpec{Size: 1 << 30, Format: client.Qcow2})
	must(t, err)
	_, err = c.CreateVolume(ctx, sr, "top", client.VolumeSpec{Format: client.Qcow2, Backing: "base"})
	must(t, err)
	must(t, c.CommitVolume(ctx, sr, "top", nil))
	must(t, c.CopyVolume(ctx, sr, "top", sr, "copy", nil))
	v, err := c.ActivateVolume(ctx, sr, "top")
	must(t, err)
	if _, err := os.Stat(filepath.Join(dir, v.Path)); err != nil || v.Path != "/state/sr/one/top.qcow2" {
		t.Errorf("%+v, %v", v, err)
	}
	check, err := c.CheckVolume(ctx, sr, "copy")
	if err != nil || check.Errors != 0 || check.End == 0 {
		t.Errorf("%+v, %v", check, err)
	}
	must(t, l.Kill("hostd"))
	must(t, l.Run("hostd"))
	if v, err := c.Volume(ctx, sr, "top"); err != nil || !v.Active || v.Backing != "base" {
		t.Errorf("after a restart: %+v, %v", v, err)
	}
	// Nothing of the machine can be reached.
	for _, bad := range []client.RepositoryConfig{
		{Type: client.TypeExt, Config: map[string]string{"device": "/dev/vda"}}, {Type: client.TypeFile, Config: map[string]string{"location": "/usr/x"}},
	} {
		if _, err := c.FormatRepository(ctx, sr, bad); err == nil {
			t.Errorf("%v was formatted", bad)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// directory is a repository in a directory, made and attached.
func directory(t *testing.T, c *client.Client, sr, where string) {
	t.Helper()
	config := client.RepositoryConfig{Type: client.TypeFile, Config: map[string]string{"location": where}}
	_, err := c.FormatRepository(t.Context(), sr, config)
	must(t, err)
	_, err = c.AttachRepository(t.Context(), sr, config)
	must(t, err)
}
