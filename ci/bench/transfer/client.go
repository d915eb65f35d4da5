package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"cairn/ci/bench/figure"
	"cairn/ci/bench/host"
	"cairn/toolstack/client"
	"cairn/toolstack/transfer/disk"
)

// told is what a client says of itself.
type told struct {
	Wall, CPU time.Duration
	Peak      int64
}

// beClient is the client: it logs in, says so, waits until it may begin, moves a file
// by what xe uses, and tells what that took. Its arguments are get or put, the address,
// the query and the file.
func beClient(ctx context.Context, args []string, in io.Reader, out io.Writer) error {
	if len(args) != 4 {
		return fmt.Errorf("arguments %q", args)
	}
	query, err := url.ParseQuery(args[2])
	if err != nil {
		return err
	}
	api, err := client.Dial(ctx, host.Login(args[1]))
	if err != nil {
		return err
	}
	fmt.Fprintln(out, "ready")
	if _, err := bufio.NewReader(in).ReadString('\n'); err != nil {
		return err
	}
	begin, used := time.Now(), ownCPU()
	if args[0] == "get" {
		err = get(ctx, api, query, args[3])
	} else {
		err = api.PutFile(ctx, "/import_raw_vdi", query, args[3])
	}
	if err != nil {
		return err
	}
	t := told{Wall: time.Since(begin), CPU: ownCPU() - used}
	if _, t.Peak, err = figure.Memory(os.Getpid()); err != nil {
		return err
	}
	return errors.Join(json.NewEncoder(out).Encode(t), api.Close(ctx))
}

func ownCPU() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func get(ctx context.Context, api *client.Client, query url.Values, file string) error {
	body, err := api.Get(ctx, "/export_raw_vdi", query)
	if err != nil {
		return err
	}
	defer body.Close()
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	err = disk.Save(ctx, f, body)
	return errors.Join(err, f.Close())
}

// stream runs a client of an address, with a look at the host before and after.
func (b *bench) stream(ctx context.Context, verb, address string, query url.Values, file string) (c cost, err error) {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", verb, address, query.Encode(), file)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return c, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return c, err
	}
	if err := cmd.Start(); err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, cmd.Wait()) }()
	lines := bufio.NewScanner(out)
	if !lines.Scan() || lines.Text() != "ready" {
		return c, fmt.Errorf("the client says %q", lines.Text())
	}
	w, err := b.watched()
	if err != nil {
		return c, err
	}
	stop := w.follow(w.lent)
	if _, err := fmt.Fprintln(in); err != nil {
		return c, err
	}
	var t told
	if lines.Scan() {
		err = json.NewDecoder(strings.NewReader(lines.Text())).Decode(&t)
	} else {
		err = errors.New("the client ended before it was done")
	}
	peaks := stop()
	if err != nil {
		return c, err
	}
	if c, err = w.used(ctx, b.watched); err != nil {
		return c, err
	}
	c.Wall, c.CPU["client"], c.Peak["client"] = t.Wall, t.CPU, t.Peak
	c.Peak[lender] = peaks
	return c, nil
}
