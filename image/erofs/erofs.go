// Package erofs turns a file system tree into an erofs image with its dm-verity
// hash tree.
//
// Nothing of the machine enters the image: the tree comes as a tar stream, the
// time is fixed, the UUIDs and the verity salt are cut from the tree's own
// digest. Equal trees therefore give equal images and equal root hashes. There
// are no fragments and no deduplication, and blocks are compressed file by
// file, so that a small change of the tree is a small change of the image.
package erofs

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
)

// Tools runs programs of the Debian tree.
type Tools interface {
	Command(ctx context.Context, name string, args ...string) *exec.Cmd
}

// Options are what decides the image besides the tree. They are part of the
// cache key, so String names all of them.
type Options struct {
	Compressor  string // of mkfs.erofs -z
	ClusterSize int    // bytes compressed as one unit at most
}

// Default is zstd at its standard level: level 12 costs twelve times the
// processor time for 6 % less. 64 KiB clusters cost 4 % against 256 KiB, and a
// page fault never has to unpack more than that. LZ4 would make the image a fifth
// larger and boots no faster, even under emulation.
var Default = Options{Compressor: "zstd,level=3", ClusterSize: 64 << 10}

func (o Options) String() string { return fmt.Sprintf("erofs-1 %s %d", o.Compressor, o.ClusterSize) }

// Source is a tree that can be written.
type Source interface {
	WriteTar(w io.Writer) error
}

// Build writes the image of tree to file. digest, a hex hash of the tree, gives
// the image its UUID.
func Build(ctx context.Context, t Tools, o Options, tree Source, digest, file string, buildTime int64) error {
	cmd := t.Command(ctx, "mkfs.erofs", "--quiet", "-z"+o.Compressor, "-C"+strconv.Itoa(o.ClusterSize),
		"-x-1", "-T"+strconv.FormatInt(buildTime, 10), "-U", UUID(digest, 0), "--tar=f", file)
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("mkfs.erofs: %w", err)
	}
	writeErr := tree.WriteTar(in)
	in.Close()
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("mkfs.erofs: %w: %s", err, out.String())
	}
	if writeErr != nil {
		return fmt.Errorf("erofs image: %w", writeErr)
	}
	return nil
}

var rootHashLine = regexp.MustCompile(`(?m)^Root hash:\s*([0-9a-f]{64})$`)

// Verity writes the hash tree of image to hashFile, which it creates, and
// returns the root hash.
func Verity(ctx context.Context, t Tools, image, hashFile, digest string) (string, error) {
	if err := os.RemoveAll(hashFile); err != nil {
		return "", err
	}
	cmd := t.Command(ctx, "veritysetup", "format", "--hash=sha256", "--data-block-size=4096",
		"--hash-block-size=4096", "--salt="+digest, "--uuid="+UUID(digest, 16), image, hashFile)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("veritysetup: %w: %s", err, out)
	}
	if err := os.Chmod(hashFile, 0o644); err != nil {
		return "", err
	}
	m := rootHashLine.FindSubmatch(out)
	if m == nil {
		return "", fmt.Errorf("veritysetup: no root hash in its output: %s", out)
	}
	return string(m[1]), nil
}

// UUID cuts a random-style (version 4) UUID out of a hex digest, at byte offset.
func UUID(digest string, offset int) string {
	b, err := hex.DecodeString(digest)
	if err != nil || len(b) < offset+16 {
		panic("erofs: digest " + strconv.Quote(digest) + " is no SHA-256 in hex")
	}
	b = append([]byte(nil), b[offset:offset+16]...)
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b)
	return strings.Join([]string{h[0:8], h[8:12], h[12:16], h[16:20], h[20:32]}, "-")
}
