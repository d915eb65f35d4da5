package dm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// fakeKernel records each ioctl and answers from a script.
type fakeKernel struct {
	calls  []string
	fail   map[Command]error
	answer func(cmd Command, buf []byte)
}

func (k *fakeKernel) Ioctl(cmd Command, buf []byte) error {
	h, payload, err := decodeHeader(buf)
	if err != nil {
		return err
	}
	line := fmt.Sprintf("%v name=%s uuid=%s flags=%#x targets=%d", cmd, h.name, h.uuid, h.flags, h.targets)
	if cmd == Load {
		line += fmt.Sprintf(" params=%q", cString(payload[specSize:]))
	}
	k.calls = append(k.calls, line)
	if err := k.fail[cmd]; err != nil {
		return err
	}
	if k.answer != nil {
		k.answer(cmd, buf)
	}
	return nil
}

func answerDev(cmd Command, buf []byte) {
	if cmd == Create {
		binary.LittleEndian.PutUint32(buf[12:], 305) // as the kernel does where there is no data
		binary.LittleEndian.PutUint64(buf[40:], unix.Mkdev(254, 3))
	}
}

func TestActivate(t *testing.T) {
	k := &fakeKernel{answer: answerDev}
	dev, err := New(k).Activate("root", "CRYPT-VERITY-x-root", true, []Target{{Length: 8, Type: "verity", Params: "1 8:1 8:2"}})
	if err != nil {
		t.Fatal(err)
	}
	if dev.String() != "254:3" {
		t.Errorf("device = %v, want 254:3", dev)
	}
	want := []string{
		"create name=root uuid=CRYPT-VERITY-x-root flags=0x0 targets=0",
		`load name=root uuid= flags=0x1 targets=1 params="1 8:1 8:2"`,
		"suspend name=root uuid= flags=0x0 targets=0",
	}
	if got := strings.Join(k.calls, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("calls:\n%s\nwant:\n%s", got, strings.Join(want, "\n"))
	}
}

func TestActivateRemovesWhatItCouldNotFinish(t *testing.T) {
	for _, cmd := range []Command{Load, Suspend} {
		k := &fakeKernel{fail: map[Command]error{cmd: unix.EINVAL}}
		if _, err := New(k).Activate("root", "", true, nil); !errors.Is(err, unix.EINVAL) {
			t.Errorf("failing %v: err = %v, want EINVAL", cmd, err)
		}
		if last := k.calls[len(k.calls)-1]; !strings.HasPrefix(last, "remove name=root") {
			t.Errorf("failing %v: last call is %q, want a removal", cmd, last)
		}
	}
	k := &fakeKernel{fail: map[Command]error{Create: unix.EBUSY}}
	if _, err := New(k).Activate("root", "", true, nil); !errors.Is(err, unix.EBUSY) || len(k.calls) != 1 {
		t.Errorf("failing create: err = %v after %d calls; another's device must stay", err, len(k.calls))
	}
}

func TestInfo(t *testing.T) {
	k := &fakeKernel{answer: func(_ Command, buf []byte) {
		binary.LittleEndian.PutUint32(buf[24:], 2)
		binary.LittleEndian.PutUint32(buf[28:], flagReadOnly)
		binary.LittleEndian.PutUint64(buf[40:], unix.Mkdev(254, 0))
	}}
	got, err := New(k).Info("root")
	if err != nil {
		t.Fatal(err)
	}
	if want := (Info{Device: Device(unix.Mkdev(254, 0)), Name: "root", OpenCount: 2, ReadOnly: true}); got != want {
		t.Errorf("Info = %+v, want %+v", got, want)
	}
}

// TestBufferFull checks that a reply that does not fit is asked for again with
// more room, and that this ends.
func TestBufferFull(t *testing.T) {
	full := func(limit int) func(Command, []byte) {
		return func(_ Command, buf []byte) {
			if len(buf) < limit {
				binary.LittleEndian.PutUint32(buf[28:], flagBufferFull)
			}
		}
	}
	k := &fakeKernel{answer: full(firstBuffer + 1)}
	if _, err := New(k).Status("root"); err != nil || len(k.calls) != 2 {
		t.Errorf("err = %v after %d calls, want success after 2", err, len(k.calls))
	}
	k = &fakeKernel{answer: full(1 << 30)}
	if _, err := New(k).Status("root"); err == nil || len(k.calls) > 8 {
		t.Errorf("err = %v after %d calls, want an early end", err, len(k.calls))
	}
}

func TestStatusAndDeps(t *testing.T) {
	k := &fakeKernel{answer: func(cmd Command, buf []byte) {
		le := binary.LittleEndian
		switch cmd {
		case TableStatus:
			le.PutUint32(buf[20:], 1)
			le.PutUint64(buf[headerSize+8:], 800)
			copy(buf[headerSize+24:], "verity")
			copy(buf[headerSize+specSize:], "V")
		case TableDeps:
			le.PutUint32(buf[headerSize:], 2)
			le.PutUint64(buf[headerSize+8:], unix.Mkdev(8, 1))
			le.PutUint64(buf[headerSize+16:], unix.Mkdev(259, 300))
		}
	}}
	c := New(k)
	table, err := c.Status("root")
	if err != nil || len(table) != 1 || table[0] != (Target{Length: 800, Type: "verity", Params: "V"}) {
		t.Errorf("Status = %v, %v", table, err)
	}
	deps, err := c.Deps("root")
	if err != nil || fmt.Sprint(deps) != "[8:1 259:300]" {
		t.Errorf("Deps = %v, %v", deps, err)
	}
}
