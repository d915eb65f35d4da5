package boot

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cairn/golden"
	"cairn/init/dm"
	"cairn/init/slots"
	"cairn/journal"
)

const sampleHash = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210"

// fake is a machine that writes down what stage 1 does with it. Events is the
// script of what happens while it waits.
type fake struct {
	out      strings.Builder
	cmdline  string
	loader   string
	disks    []Disk
	present  []string
	hba      string // the device whose driver shows sda
	coreErr  error  // of the modules without which nothing works
	script   []func(f *fake) (string, error)
	mountErr map[string]error
	noShell  bool
	noDog    bool
	badBlock bool // the hash partition holds no superblock
	exec     bool // the new init was started: nothing may follow
}

func (f *fake) say(format string, args ...any) { fmt.Fprintf(&f.out, format+"\n", args...) }

// Write takes log lines, without their time.
func (f *fake) Write(line []byte) (int, error) {
	_, text, _ := strings.Cut(string(line), " ")
	f.out.WriteString("log   " + text)
	return len(line), nil
}

func (f *fake) deps() Deps {
	return Deps{Log: journal.New(f, "boot"), Machine: f, Mounts: f, Modules: f, Events: f, Disks: f, Mapper: f, Watchdog: fakeDog{f}}
}

func (f *fake) CommandLine() (string, error)    { return f.cmdline, nil }
func (f *fake) Uptime() string                  { return "1.50" }
func (f *fake) LoaderPartition() (string, bool) { return f.loader, f.loader != "" }
func (f *fake) Pause(d time.Duration)           { f.say("pause %v", d) }
func (f *fake) Restart()                        { f.say("restart") }
func (f *fake) Exec(path string, argv, env []string) error {
	f.say("exec  %s argv=%v env=%v", path, argv, env)
	f.exec = true
	return nil
}

func (f *fake) Shell() error {
	f.say("shell")
	if f.noShell {
		return errors.New("no shell in the archive")
	}
	return nil
}

func (f *fake) Mount(source, target, fstype string, flags uintptr, data string) error {
	f.say("mount %s %s %s %#x %q", source, target, fstype, flags, data)
	return f.mountErr[target]
}

func (f *fake) Move(from, to string) error {
	f.say("move  %s %s", from, to)
	return nil
}

func (f *fake) SwitchRoot(dir string) error {
	f.say("switch %s", dir)
	return nil
}

func (f *fake) Present() []string { return f.present }

func (f *fake) LoadAlias(modalias string) (bool, []error) {
	f.say("load  %s", modalias)
	switch {
	case strings.HasPrefix(modalias, "bad:"):
		return false, []error{fmt.Errorf("bad_driver: %w", unix.EINVAL)}
	case modalias == f.hba:
		f.disks = append(f.disks, installed("sda"))
	}
	return true, nil
}

func (f *fake) Start(names []string) func() error {
	f.say("start %v", names)
	return func() error {
		f.say("wait  %v", names)
		return f.coreErr
	}
}

func (f *fake) LoadWatchdogs() []error {
	f.say("load  watchdogs")
	return nil
}

func (f *fake) Next(ctx context.Context) (string, error) {
	if len(f.script) == 0 {
		f.say("event none")
		<-ctx.Done()
		return "", ctx.Err()
	}
	step := f.script[0]
	f.script = f.script[1:]
	modalias, err := step(f)
	f.say("event %q %v", modalias, err)
	return modalias, err
}

func (f *fake) Scan() ([]Disk, []error) {
	var names []string
	for _, d := range f.disks {
		names = append(names, d.Name)
	}
	f.say("scan  %v", names)
	return f.disks, nil
}

func (f *fake) Superblock(p Partition) ([]byte, error) {
	f.say("read  superblock %s", p.Node)
	head := make([]byte, dm.SuperblockSize)
	if f.badBlock {
		return head, nil
	}
	copy(head, "verity\x00\x00\x01\x00\x00\x00\x01\x00\x00\x00")
	copy(head[32:], "sha256")
	head[65], head[69], head[72] = 0x10, 0x10, 100 // 100 blocks of 4096
	return head, nil
}

func (f *fake) Activate(name, uuid string, readOnly bool, table []dm.Target) (dm.Device, error) {
	f.say("dm    %s %s ro=%v %+v", name, uuid, readOnly, table)
	return dm.Device(unix.Mkdev(254, 7)), nil
}

type fakeDog struct{ f *fake }

func (d fakeDog) Open(timeout time.Duration) (int, time.Duration, error) {
	if d.f.noDog {
		return -1, 0, fmt.Errorf("/dev/watchdog: %w", unix.ENOENT)
	}
	d.f.say("dog   open %v", timeout)
	return 9, timeout, nil
}

func (d fakeDog) Feed(fd int) { d.f.say("dog   feed %d", fd) }

// installed is a disk with the image in slot A.
func installed(name string) Disk {
	root, hash, _ := slots.PartUUIDs(sampleHash)
	part := func(label, uuid string, n int) Partition {
		return Partition{
			Partition: slots.Partition{Name: label, UUID: uuid},
			Dev:       fmt.Sprintf("8:%d", n), Node: fmt.Sprintf("/dev/%s%d", name, n), Size: 1 << 20,
		}
	}
	return Disk{Name: name, GUID: "guid-of-" + name, Partitions: []Partition{
		part("ESP", "e5b00000-0000-0000-0000-0000000000"+name[len(name)-2:], 1), part("root_A", root, 2), part("hash_A", hash, 3),
	}}
}

func appear(d Disk) func(*fake) (string, error) {
	return func(f *fake) (string, error) {
		f.disks = append(f.disks, d)
		return "", nil
	}
}

func TestTranscripts(t *testing.T) {
	normal := "console=ttyS0 cairn.root=" + sampleHash + " quiet"
	cases := map[string]*fake{
		"normal": {
			cmdline: normal, present: []string{"pci:v1", "bad:x", "virtio:d2"},
			script: []func(*fake) (string, error){
				func(*fake) (string, error) { return "scsi:t-0x00", nil },
				func(*fake) (string, error) { return "", errLost },
				appear(installed("sda")),
			},
		},
		"behind-hba":      {cmdline: normal, present: []string{"virtio:d1", "pci:hba", "pci:usb"}, hba: "pci:hba"},
		"no-verity":       {cmdline: normal, disks: []Disk{installed("sda")}, coreErr: errors.New("kernel module dm_verity: no such module")},
		"no-watchdog":     {cmdline: normal, noDog: true, disks: []Disk{installed("sda")}},
		"two-disks":       {cmdline: normal, disks: []Disk{installed("sdb"), installed("sda")}},
		"loader-disk":     {cmdline: normal, loader: "E5B00000-0000-0000-0000-0000000000db", disks: []Disk{installed("sda")}, script: []func(*fake) (string, error){appear(installed("sdb"))}},
		"root-missing":    {cmdline: normal, present: []string{"pci:v1"}},
		"verity-mismatch": {cmdline: normal, disks: []Disk{installed("sda")}, mountErr: map[string]error{newRoot: unix.EIO}},
		"no-superblock":   {cmdline: normal, disks: []Disk{installed("sda")}, badBlock: true},
		"no-hash":         {cmdline: "quiet"},
		"no-proc":         {mountErr: map[string]error{"/proc": unix.EPERM}},
		"rescue":          {cmdline: "cairn.rescue=1", present: []string{"pci:v1"}},
		"rescue-no-shell": {cmdline: normal + " cairn.rescue=1", noShell: true},
	}
	for name, f := range cases {
		t.Run(name, func(t *testing.T) {
			// A context that has ended stands for the 30 s that passed in vain.
			ctx, cancel := context.WithCancel(context.Background())
			if name == "root-missing" {
				cancel()
			}
			defer cancel()
			if err := Run(ctx, f.deps()); err == nil {
				t.Fatal("Run returned without an error")
			} else if !f.exec {
				Fail(f.deps(), err)
			}
			golden.Equal(t, "testdata/"+name+".txt", f.out.String())
		})
	}
}

func TestChoose(t *testing.T) {
	a, b := candidate{disk: installed("sda")}, candidate{disk: installed("sdb")}
	cases := []struct {
		about  string
		found  []candidate
		loader string
		any    bool
		want   string
	}{
		{"nothing", nil, "", true, ""},
		{"one, loader unknown", []candidate{a}, "", true, "sda"},
		{"the loader's", []candidate{a, b}, "e5b00000-0000-0000-0000-0000000000db", false, "sdb"},
		{"not the loader's, too early", []candidate{a}, "e5b00000-0000-0000-0000-0000000000db", false, ""},
		{"not the loader's, late", []candidate{a}, "e5b00000-0000-0000-0000-0000000000db", true, "sda"},
	}
	for _, c := range cases {
		got, ok := choose(c.found, c.loader, c.any)
		if got.disk.Name != c.want || ok != (c.want != "") {
			t.Errorf("%s: chose %q, want %q", c.about, got.disk.Name, c.want)
		}
	}
}

func TestParseCommandLine(t *testing.T) {
	other := strings.Repeat("f", 64)
	cases := []struct {
		text string
		want cmdline
		ok   bool
	}{
		{"cairn.root=" + sampleHash, cmdline{rootHash: sampleHash}, true},
		{"cairn.root=" + strings.ToUpper(sampleHash), cmdline{rootHash: sampleHash}, true},
		{"cairn.root=" + sampleHash + " cairn.root=" + other, cmdline{rootHash: sampleHash}, true},
		{"cairn.rescue=1", cmdline{rescue: true}, true},
		{"cairn.rescue=0 cairn.root=" + sampleHash, cmdline{rootHash: sampleHash}, true},
		{"", cmdline{}, false},
		{"cairn.root=/dev/sda2", cmdline{rootHash: "/dev/sda2"}, false},
	}
	for _, c := range cases {
		got, err := parseCommandLine(c.text)
		if got != c.want || (err == nil) != c.ok {
			t.Errorf("parseCommandLine(%q) = %+v, %v", c.text, got, err)
		}
	}
}

func TestParseLoaderPartition(t *testing.T) {
	encode := func(s string) []byte {
		b := []byte{6, 0, 0, 0}
		for _, r := range s {
			b = append(b, byte(r), 0)
		}
		return b
	}
	const uuid = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
	if got, ok := parseLoaderPartition(encode(uuid + "\x00")); !ok || got != strings.ToLower(uuid) {
		t.Errorf("got %q, %v", got, ok)
	}
	for _, bad := range [][]byte{nil, {6, 0, 0, 0}, encode("x"), encode(strings.Repeat("z", 36)), make([]byte, 4096)} {
		if got, ok := parseLoaderPartition(bad); ok {
			t.Errorf("accepted %q as %q", bad, got)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("quiet cairn.root="+sampleHash, []byte{6, 0, 0, 0, 'a', 0})
	f.Fuzz(func(t *testing.T, text string, variable []byte) {
		if c, err := parseCommandLine(text); err == nil && !c.rescue && len(c.rootHash) != 64 {
			t.Errorf("accepted %+v", c)
		}
		if uuid, ok := parseLoaderPartition(variable); ok && len(uuid) != 36 {
			t.Errorf("accepted %q", uuid)
		}
	})
}
