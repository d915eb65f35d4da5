package qemuimg

import (
	"encoding/json"
	"fmt"
	"strconv"

	"cairn/init/hostd/client"
	"cairn/init/storage/tool"
)

// Program is what a Runner calls it.
const Program = "qemu-img"

// ClusterSize of the images made here: 64 KiB is also what XenAPI counts changed
// blocks in.
const ClusterSize = 64 << 10

// layout are the options of every qcow2 image made here. Lazy reference counts
// would leave an image that needs repair after a crash.
var layout = fmt.Sprintf("cluster_size=%d,compat=1.1,lazy_refcounts=off", ClusterSize)

// Overlay names what is below an image that is to be made.
type Overlay struct {
	Backing string // as the header shall say it, relative to the image
	Format  client.Format
}

func command(args ...string) tool.Command {
	return tool.Command{Name: Program, Args: args, Confined: true}
}

// Create makes an image at path. The backing is not opened: a guest may be
// writing to it until it switches to the new one.
func Create(path string, format client.Format, size int64, below Overlay) tool.Command {
	args := []string{"create", "-q", "-f", string(format)}
	if format == client.Qcow2 {
		args = append(args, "-o", layout)
	}
	if below.Backing != "" {
		args = append(args, "-u", "-b", below.Backing, "-F", string(below.Format))
	}
	return command(append(args, path, strconv.FormatInt(size, 10))...)
}

// Resize makes an image larger.
func Resize(path string, format client.Format, size int64) tool.Command {
	return command("resize", "-q", "-f", string(format), path, strconv.FormatInt(size, 10))
}

// Rebase writes another backing into the header, and only there.
func Rebase(path string, below Overlay) tool.Command {
	return command("rebase", "-q", "-u", "-f", string(client.Qcow2), "-b", below.Backing, "-F", string(below.Format), path)
}

// Commit writes an overlay's data into its backing. The overlay keeps its data
// (-d), so that until the last moment a reader of it finds everything.
func Commit(path string, progress func(float64)) tool.Command {
	c := command("commit", "-p", "-d", "-f", string(client.Qcow2), path)
	c.Output = Progress(progress)
	return c
}

// Convert writes what source reads into a new image at path, without zeros.
func Convert(source string, from client.Format, path string, to client.Format, progress func(float64)) tool.Command {
	args := []string{"convert", "-p", "-f", string(from), "-O", string(to)}
	if to == client.Qcow2 {
		args = append(args, "-o", layout)
	}
	c := command(append(args, source, path)...)
	c.Output = Progress(progress)
	return c
}

// Check looks for defects and changes nothing.
func Check(path string) tool.Command {
	return command("check", "--output=json", "-f", string(client.Qcow2), path)
}

// Tidy gives back clusters nobody refers to, which a writer that was killed leaves:
// it counts them as used before it says what for.
func Tidy(path string) tool.Command {
	return command("check", "-q", "-r", "leaks", "-f", string(client.Qcow2), path)
}

// Exit codes of check, from qemu-img(1): defects are found, or only leaks are.
const (
	exitCorrupt = 2
	exitLeaks   = 3
)

// ParseCheck reads the answer of Check.
func ParseCheck(out []byte, err error) (client.Check, error) {
	if err != nil {
		code, _ := tool.Code(err)
		if code != exitCorrupt && code != exitLeaks {
			return client.Check{}, err
		}
		var f *tool.Failure
		if asFailure(err, &f) {
			out = f.Output
		}
	}
	return parseCheck(out)
}

func parseCheck(out []byte) (client.Check, error) {
	var report struct {
		CheckErrors int64 `json:"check-errors"`
		Corruptions int64 `json:"corruptions"`
		Leaks       int64 `json:"leaks"`
		End         int64 `json:"image-end-offset"`
	}
	if err := json.Unmarshal(out, &report); err != nil {
		return client.Check{}, fmt.Errorf("answer of qemu-img check: %w", err)
	}
	return client.Check{Errors: report.CheckErrors + report.Corruptions, Leaks: report.Leaks, End: report.End}, nil
}

// FullSize is the most bytes an image of this virtual size can take: every
// cluster of data, with 8 bytes of L2 table and 2 of reference count each, and
// the tables of those. QEMU's own sum is less by what does not add up here.
func FullSize(format client.Format, size int64) int64 {
	if format != client.Qcow2 {
		return size
	}
	const tables = 2 << 20 // header, L1, reference table, rounding of each up to clusters
	data := roundUp(size, ClusterSize)
	return data + roundUp(data/ClusterSize*16, ClusterSize) + tables
}

func roundUp(n, unit int64) int64 { return (n + unit - 1) / unit * unit }
