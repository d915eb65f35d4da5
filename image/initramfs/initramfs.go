// Package initramfs writes initial RAM file systems with u-root's mkuimage: the
// archive of stage 1, the one with a rescue shell, and the early archive that
// carries processor microcode.
//
// The base archive is our own: only the device nodes the kernel opens before
// /init mounts devtmpfs, and no resolver configuration. Archives are sorted,
// without times and owners, so equal inputs give equal bytes.
package initramfs

import (
	"bytes"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"github.com/pierrec/lz4/v4"
	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage"
	"github.com/u-root/uio/llog"
)

// Spec says what an archive holds.
type Spec struct {
	Init    string   // program that becomes /init
	Modules string   // directory with lib/modules, copied whole; empty for none
	Busybox string   // u-root busybox; empty for an archive without commands
	Applets []string // its commands, each a link in /bbin
	Shell   string   // the applet that is /bin/sh
	Files   map[string]string
}

// Build writes the archive of spec, compressed, to file.
func Build(spec Spec, file string) error {
	tmp, err := os.MkdirTemp("", "cairn-initramfs-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	plain := filepath.Join(tmp, "initramfs.cpio")
	var said bytes.Buffer
	log := llog.New(slog.LevelInfo, func(f string, args ...any) { fmt.Fprintf(&said, f+"\n", args...) })
	mods := append(spec.modifiers(),
		uimage.WithTempDir(tmp), uimage.WithSkipLDD(),
		uimage.WithBaseArchive(spec.base()), uimage.WithCPIOOutput(plain))
	if err := uimage.Create(log, mods...); err != nil {
		return fmt.Errorf("initramfs %s: %w\n%s", filepath.Base(file), err, said.String())
	}
	return compress(plain, file)
}

func (s Spec) modifiers() []uimage.Modifier {
	mods := []uimage.Modifier{uimage.WithFiles(s.Init + ":init")}
	if s.Modules != "" {
		mods = append(mods, uimage.WithFiles(filepath.Join(s.Modules, "lib/modules")+":lib/modules"))
	}
	for dst, src := range s.Files {
		mods = append(mods, uimage.WithFiles(src+":"+dst))
	}
	if s.Busybox == "" {
		return mods
	}
	return append(mods, uimage.WithFiles(s.Busybox+":bbin/bb"))
}

// base holds what must exist before /init runs: the kernel opens /dev/console
// for it. The links of a busybox are here too, because mkuimage takes those it
// is given for names of commands it built.
func (s Spec) base() *cpio.Archive {
	records := []cpio.Record{
		cpio.Directory("dev", 0o755), cpio.Directory("proc", 0o755), cpio.Directory("sys", 0o755),
		cpio.Directory("run", 0o755), cpio.Directory("tmp", 0o777), cpio.Directory("etc", 0o755),
		cpio.CharDev("dev/console", 0o600, 5, 1), cpio.CharDev("dev/null", 0o666, 1, 3),
		cpio.CharDev("dev/kmsg", 0o600, 1, 11),
	}
	if s.Busybox != "" {
		for _, name := range []string{"bin/sh", "bin/defaultsh"} {
			records = append(records, cpio.Symlink(name, "../bbin/"+s.Shell))
		}
		for _, a := range s.Applets {
			records = append(records, cpio.Symlink("bbin/"+a, "bb"))
		}
	}
	a := cpio.InMemArchive()
	for _, r := range records {
		_ = a.WriteRecord(r) // writing to memory does not fail
	}
	return a
}

// compress writes plain to file in the kernel's LZ4 format. The kernel waits for
// the whole archive to be unpacked before its first module request is answered,
// and LZ4 takes a third of zstd's time for a third more bytes. One encoder, so
// that the cut into blocks does not depend on the machine.
func compress(plain, file string) error {
	data, err := os.ReadFile(plain)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	w := lz4.NewWriter(&out)
	err = w.Apply(lz4.LegacyOption(true), lz4.CompressionLevelOption(lz4.Level9), lz4.ConcurrencyOption(1))
	if err != nil {
		return fmt.Errorf("compress %s: %w", file, err)
	}
	if _, err := w.Write(data); err != nil {
		return fmt.Errorf("compress %s: %w", file, err)
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("compress %s: %w", file, err)
	}
	return os.WriteFile(file, ended(out.Bytes()), 0o644)
}

// ended adds the zero word that ends the kernel's LZ4 format, and pads to words.
// Without it the kernel takes what the boot stub puts behind the archive for
// more of it, and says that decoding failed.
func ended(archive []byte) []byte {
	const word = 4
	return append(archive, make([]byte, word+(word-len(archive)%word)%word)...)
}

// Microcode is the early archive: per vendor the update files in the order
// given, joined, under the name the kernel looks for. It is not compressed,
// because the kernel reads it before it can decompress.
func Microcode(intel, amd []string, file string) error {
	records := []cpio.Record{
		cpio.Directory("kernel", 0o755), cpio.Directory("kernel/x86", 0o755), cpio.Directory("kernel/x86/microcode", 0o755),
	}
	for _, v := range []struct {
		name  string
		files []string
	}{{"AuthenticAMD.bin", amd}, {"GenuineIntel.bin", intel}} {
		var data []byte
		for _, f := range slices.Sorted(slices.Values(v.files)) {
			b, err := os.ReadFile(f)
			if err != nil {
				return fmt.Errorf("microcode: %w", err)
			}
			data = append(data, b...)
		}
		if len(data) > 0 {
			records = append(records, cpio.StaticFile("kernel/x86/microcode/"+v.name, string(data), 0o644))
		}
	}
	var out bytes.Buffer
	w := cpio.Newc.Writer(&out)
	cpio.MakeAllReproducible(records)
	if err := cpio.WriteRecords(w, records); err != nil {
		return fmt.Errorf("microcode: %w", err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		return fmt.Errorf("microcode: %w", err)
	}
	// Archives that follow must start on a four-byte boundary.
	for out.Len()%4 != 0 {
		out.WriteByte(0)
	}
	return os.WriteFile(file, out.Bytes(), 0o644)
}
