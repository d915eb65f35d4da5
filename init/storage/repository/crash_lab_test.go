//go:build lab && amd64

package repository

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"cairn/init/hostd/client"
	"cairn/init/storage"
	"cairn/init/storage/media"
	"cairn/init/storage/tool"
)

// crashEnv, in the environment, makes the test binary a hostd that runs the
// workload in a directory and says what it has finished.
const crashEnv = "CAIRN_CRASH_DIR"

func TestMain(m *testing.M) {
	dir := os.Getenv(crashEnv)
	switch {
	case os.Getpid() == 1:
		inside(m)
	case dir == "":
		os.Exit(m.Run())
	}
	if err := child(dir); err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
}

func child(dir string) error {
	m := crashManager(dir, slog.New(slog.DiscardHandler))
	for i, v := range workload(m, dir) {
		if err := v.do(context.Background()); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
		fmt.Println(i)
	}
	return nil
}

// crashManager is a hostd whose machine is dir, with the programs beside it.
func crashManager(dir string, log *slog.Logger) *Manager {
	tools := tool.Linux{Make: programs{filepath.Join(filepath.Dir(dir), "programs")}.command, User: realUser, Group: realUser}
	return New(Config{
		Tools: tools, Mounter: storage.Linux{}, Media: media.Source{Sys: "/sys", Dev: "/dev", Proc: "/proc", Tools: tools},
		Record: dir + "/run/repositories.json", FilePrefixes: []string{dir + "/sr"}, User: realUser, Group: realUser, Log: log,
	})
}

type verb struct {
	name string
	do   func(context.Context) error
}

// workload makes, writes, grows, commits, copies and removes. Every verb may be
// repeated, so that one that was cut off can be asked for again.
func workload(m *Manager, dir string) []verb {
	config := fileConfig(dir + "/sr/one")
	volume := func(name, backing string) verb {
		return verb{"create " + name, func(ctx context.Context) error {
			_, err := m.CreateVolume(ctx, srA, name, client.VolumeSpec{Size: 4 * mib, Format: client.Qcow2, Backing: backing, Note: "note of " + name})
			return err
		}}
	}
	write := func(name string, commands ...string) verb {
		return verb{"write " + name, func(ctx context.Context) error { return crashIO(ctx, m, dir, name, commands...) }}
	}
	return []verb{
		{"format", func(ctx context.Context) error { _, err := m.Format(ctx, srA, config); return err }},
		{"attach", func(ctx context.Context) error { _, err := m.Attach(ctx, srA, config); return err }},
		volume("base", ""),
		write("base", "write -P 0x11 0 1M"),
		volume("top", "base"),
		write("top", "write -P 0x22 512k 1M"),
		volume("leaf", "top"),
		{"commit top", func(ctx context.Context) error { return m.CommitVolume(ctx, srA, "top", func(float64) {}) }},
		{"rebase leaf", func(ctx context.Context) error { return m.RebaseVolume(ctx, srA, "leaf", "base") }},
		{"delete top", func(ctx context.Context) error { return m.DeleteVolume(ctx, srA, "top") }},
		{"note leaf", func(ctx context.Context) error { return m.NoteVolume(ctx, srA, "leaf", "newer") }},
		{"resize leaf", func(ctx context.Context) error { _, err := m.ResizeVolume(ctx, srA, "leaf", 8*mib); return err }},
		{"copy leaf", func(ctx context.Context) error {
			_, err := m.CopyVolume(ctx, srA, "leaf", srA, "copy", func(float64) {})
			if is(err, client.CodeConflict) {
				return nil // made before
			}
			return err
		}},
		{"log", func(ctx context.Context) error {
			err := m.WriteChangeLog(ctx, srA, "one", crashLog)
			if is(err, client.CodeConflict) {
				return nil // made before
			}
			return err
		}},
		{"activate leaf", func(ctx context.Context) error { _, err := m.ActivateVolume(ctx, srA, "leaf"); return err }},
	}
}

// crashLog is larger than what a program writes at once.
var crashLog = bytes.Repeat([]byte("changed "), 32<<10)

// sameLog checks that the log is there as it was written or, before it was, not at all.
func sameLog(ctx context.Context, m *Manager, must bool) error {
	text, err := m.ReadChangeLog(ctx, srA, "one")
	if is(err, client.CodeNotFound) && !must {
		return nil
	}
	if err == nil && !bytes.Equal(text, crashLog) {
		err = fmt.Errorf("log of %d bytes is another", len(text))
	}
	return err
}

// crashIO is what a guest does, or a reader that checks.
func crashIO(ctx context.Context, m *Manager, dir, name string, commands ...string) error {
	args := []string{"-f", "qcow2"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	out, err := m.cfg.Tools.(tool.Linux).Make(ctx, "qemu-io", append(args, dir+"/sr/one/"+name+".qcow2")...).CombinedOutput()
	if err != nil || strings.Contains(string(out), "failed") {
		return fmt.Errorf("%q on %s: %w: %s", commands, name, err, out)
	}
	return nil
}

// content is what a guest of top, and later of leaf and copy, reads.
var content = []string{"read -P 0x11 0 512k", "read -P 0x22 512k 1M", "read -P 0 1536k 2560k"}

// TestCrashAtEveryStep kills hostd before each call that changes a file, its own
// or that of a program it runs, and looks at what a new one finds.
func TestCrashAtEveryStep(t *testing.T) {
	top := t.TempDir()
	open(t, top)
	must(t, os.Rename(copyPrograms(t).dir, filepath.Join(top, "programs")))
	stride := 1
	if s := os.Getenv("CRASH_STRIDE"); s != "" {
		var err error
		stride, err = strconv.Atoi(s)
		must(t, err)
	}
	steps, cut := 0, map[string]int{}
	for n := 1; ; n += stride {
		dir := filepath.Join(top, "m")
		must(t, os.RemoveAll(dir))
		for _, d := range []string{"m", "m/sr", "m/run"} {
			must(t, os.Mkdir(filepath.Join(top, d), 0o755))
		}
		acked, done, err := traceUntil(dir, n)
		if err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
		m := crashManager(dir, slog.New(slog.DiscardHandler))
		if err := inspect(t.Context(), m, dir, acked); err != nil {
			t.Fatalf("killed before step %d, after %d verbs: %v", n, acked+1, err)
		}
		if err := finish(t.Context(), m, dir, acked); err != nil {
			t.Fatalf("killed before step %d, after %d verbs: then %v", n, acked+1, err)
		}
		if done {
			break
		}
		steps++
		cut[workload(m, dir)[acked+1].name]++
	}
	t.Logf("%d steps, by verb: %v", steps, cut)
	if steps*stride < 50 {
		t.Errorf("only %d steps: the trace is broken", steps)
	}
}

// inspect checks what must hold wherever hostd was killed.
func inspect(ctx context.Context, m *Manager, dir string, acked int) error {
	all := workload(m, dir)
	did := func(name string) bool {
		return slices.ContainsFunc(all[:acked+1], func(v verb) bool { return v.name == name })
	}
	if !did("format") {
		return nil
	}
	if _, err := m.Attach(ctx, srA, fileConfig(dir+"/sr/one")); err != nil {
		return err
	}
	left, err := filepath.Glob(dir + "/sr/one/.new-*")
	if err != nil || len(left) > 0 {
		return fmt.Errorf("left behind: %q, %w", left, err)
	}
	if err := sameLog(ctx, m, did("log")); err != nil {
		return err
	}
	list, err := m.Volumes(ctx, srA)
	if err != nil {
		return err
	}
	found := map[string]client.Volume{}
	for _, v := range list {
		found[v.Name] = v
		if v.Problem != "" || v.Note == "" {
			return fmt.Errorf("%+v", v)
		}
		if c, err := m.CheckVolume(ctx, srA, v.Name); err != nil || c.Errors > 0 {
			return fmt.Errorf("check of %s: %+v, %w", v.Name, c, err)
		}
	}
	for _, name := range []string{"base", "top", "leaf", "copy"} {
		_, ok := found[name]
		gone := name == "top" && acked+1 >= slices.IndexFunc(all, func(v verb) bool { return v.name == "delete top" })
		if made := did("create "+name) || did("copy leaf") && name == "copy"; made && !ok && !gone {
			return fmt.Errorf("%s is lost", name)
		}
		if !ok || name == "base" && !did("commit top") || name == "top" && !did("write top") {
			continue
		}
		if err := crashIO(ctx, m, dir, name, content...); err != nil {
			return err
		}
	}
	if did("note leaf") && found["leaf"].Note != "newer" || did("resize leaf") && found["leaf"].VirtualSize != 8*mib || did("activate leaf") && !found["leaf"].Active {
		return fmt.Errorf("leaf is %+v", found["leaf"])
	}
	return nil
}

// finish asks for the rest again, from the verb that was cut off.
func finish(ctx context.Context, m *Manager, dir string, acked int) error {
	for _, v := range workload(m, dir)[acked+1:] {
		if err := v.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", v.name, err)
		}
	}
	if err := sameLog(ctx, m, true); err != nil {
		return err
	}
	list, err := m.Volumes(ctx, srA)
	if err != nil {
		return err
	}
	var names []string
	for _, v := range list {
		names = append(names, fmt.Sprintf("%s<%s:%d", v.Name, v.Backing, v.VirtualSize/mib))
	}
	if got := strings.Join(names, " "); got != "base<:4 copy<:8 leaf<base:8" {
		return errors.New(got)
	}
	return errors.Join(crashIO(ctx, m, dir, "leaf", content...), crashIO(ctx, m, dir, "copy", content...))
}

// lastAck reads what the child has said.
func lastAck(out *os.File) (int, error) {
	if _, err := out.Seek(0, 0); err != nil {
		return 0, err
	}
	last := -1
	for s := bufio.NewScanner(out); s.Scan(); {
		n, err := strconv.Atoi(s.Text())
		if err != nil {
			return 0, err
		}
		last = n
	}
	return last, nil
}
