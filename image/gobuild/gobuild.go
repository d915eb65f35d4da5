// Package gobuild builds the Go programs of an image: Cairn's own, as normal
// static programs, and u-root's commands, as one busybox.
//
// Builds are reproducible: no cgo, no paths, no version control stamps, no
// build IDs. The go command is the one that runs this builder.
package gobuild

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/u-root/gobusybox/src/pkg/golang"
	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage"
	"github.com/u-root/mkuimage/uimage/initramfs"
	"github.com/u-root/uio/llog"
)

// uroot is where the commands of a busybox come from.
const uroot = "github.com/u-root/u-root/cmds/core/"

// shellTag chooses gosh's small line editor.
const shellTag = "goshliner"

// Binary builds package pkg of the module in dir to file. The go command skips
// what is up to date.
func Binary(ctx context.Context, dir, pkg, file string) error {
	const flags = "-s -w -buildid="
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags="+flags, "-o", file, pkg)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w\n%s", pkg, err, out)
	}
	return nil
}

// root is where the go command that built this program has its library: `go run`
// and `go test` put that command first in PATH.
func root() (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env GOROOT: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// Busybox builds u-root's commands into one program and writes it to file.
// Which command it is, it sees by the name it is started by.
func Busybox(dir, file string, commands []string) error {
	goroot, err := root()
	if err != nil {
		return err
	}
	tmp, err := os.MkdirTemp("", "cairn-busybox-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	var pkgs []string
	for _, c := range commands {
		pkgs = append(pkgs, uroot+c)
	}
	var said bytes.Buffer
	archive := cpio.InMemArchive()
	log := llog.New(slog.LevelInfo, func(f string, args ...any) { fmt.Fprintf(&said, f+"\n", args...) })
	err = uimage.Create(log,
		uimage.WithReplaceEnv(golang.Default(golang.DisableCGO(), golang.WithBuildTag(shellTag),
			golang.WithGOROOT(goroot), golang.WithWorkingDir(dir))),
		uimage.WithTempDir(tmp), uimage.WithSkipLDD(),
		uimage.WithBaseArchive(cpio.InMemArchive()),
		uimage.WithBusyboxCommands(pkgs...),
		uimage.WithOutput(&initramfs.Archive{Archive: archive}))
	if err != nil {
		return fmt.Errorf("u-root busybox: %w\n%s", err, said.String())
	}
	return extract(archive, "bbin/bb", file)
}

func extract(a *cpio.Archive, name, file string) error {
	i := slices.Index(a.Order, name)
	if i < 0 {
		return fmt.Errorf("u-root busybox: no %s in the archive, which has %s", name, strings.Join(a.Order, " "))
	}
	rec := a.Files[name]
	data, err := io.ReadAll(io.NewSectionReader(rec.ReaderAt, 0, int64(rec.FileSize)))
	if err != nil {
		return fmt.Errorf("u-root busybox: %w", err)
	}
	return os.WriteFile(file, data, 0o755)
}
