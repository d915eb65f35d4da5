package qemuimg

import (
	"encoding/json"
	"fmt"
	"os"

	"cairn/init/hostd/client"
	"cairn/init/storage/tool"
)

// ServeProgram is what a Runner calls the program that lends out images.
const ServeProgram = "qemu-nbd"

// keepBuffers has the C library keep 64 MiB of what was given back to it: a buffer of each
// request, made anew from pages of the kernel's, cost a third of the program's time.
var keepBuffers = []string{"MALLOC_MMAP_THRESHOLD_=67108864", "MALLOC_TRIM_THRESHOLD_=67108864"}

// Layer is one image of a chain.
type Layer struct {
	Path   string
	Format client.Format
	Block  bool
	// Direct passes the host's page cache by: what is written does not push out of memory
	// what guests need, and does not wait there for its turn.
	Direct bool
}

// Serve lends out what a chain of images, the top one first, reads as, or is to hold,
// over NBD to the first who connects to a listening socket. It ends when that one has
// gone. QEMU opens these images and no others, whatever their headers name.
//
// It tells, beside what is zero, in which layer bytes are. It recognizes the socket by
// variables that name its own process, which is number 1 to itself when confined.
func Serve(chain []Layer, writable bool, socket *os.File) (tool.Command, error) {
	image, err := json.Marshal(node(chain))
	if err != nil {
		return tool.Command{}, fmt.Errorf("chain of %s: %w", chain[0].Path, err)
	}
	args := []string{"--allocation-depth", "--discard=unmap"}
	if !writable {
		args = append(args, "--read-only")
	}
	return tool.Command{
		Name: ServeProgram, Args: append(args, "json:"+string(image)), Confined: true,
		Env: append([]string{"LISTEN_FDS=1", "LISTEN_PID=1"}, keepBuffers...), Files: []*os.File{socket}, Gently: true,
	}, nil
}

// node describes the chain in the words of QEMU's blockdev-add.
func node(chain []Layer) map[string]any {
	l := chain[0]
	file := map[string]any{"driver": "file", "filename": l.Path}
	if l.Block {
		file["driver"] = "host_device"
	}
	if l.Direct {
		file["cache"] = map[string]any{"direct": true}
	}
	n := map[string]any{"driver": string(l.Format), "file": file}
	switch {
	case len(chain) > 1:
		n["backing"] = node(chain[1:])
	case l.Format == client.Qcow2:
		n["backing"] = nil // not even what its header names
	}
	return n
}
