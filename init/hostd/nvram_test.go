package hostd

import (
	"os"
	"path/filepath"
	"testing"

	"cairn/init/hostd/client"
)

// TestNVRAMVerbs: the verbs through a real hostd, on files as libvirt keeps them.
func TestNVRAMVerbs(t *testing.T) {
	l := newLab(t)
	l.start()
	ctx, c := t.Context(), l.client
	const from, to = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
	dir := filepath.Join(l.dir, "libvirt/qemu/nvram")
	must(t, os.MkdirAll(dir, 0o755))
	must(t, os.WriteFile(filepath.Join(dir, from+"_VARS.fd"), []byte("entries"), 0o600))
	drafts := func(want int) {
		t.Helper()
		if got, err := c.DraftNVRAM(ctx); err != nil || len(got) != want {
			t.Errorf("drafts %v %v, want %d", got, err, want)
		}
	}
	drafts(0)
	must(t, c.CopyNVRAM(ctx, to, client.NVRAM{From: from, Variables: true, TPM: true, Draft: true}))
	drafts(1)
	if text, err := os.ReadFile(filepath.Join(dir, to+"_VARS.fd")); err != nil || string(text) != "entries" {
		t.Errorf("copied %q: %v", text, err)
	}
	must(t, c.DropNVRAM(ctx, to))
	drafts(0)
	must(t, c.CopyNVRAM(ctx, to, client.NVRAM{From: from, Variables: true, Draft: true}))
	must(t, c.KeepNVRAM(ctx, to))
	drafts(0)
	if err := c.CopyNVRAM(ctx, "nobody", client.NVRAM{From: from, Variables: true}); code(err) != client.CodeBadRequest {
		t.Errorf("a name that is no uuid: %v", err)
	}
}
