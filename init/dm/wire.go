package dm

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"
)

// Command is the number of a device mapper ioctl (linux/dm-ioctl.h).
type Command uint8

// The commands used here.
const (
	Version     Command = 0
	Create      Command = 3
	Remove      Command = 4
	Suspend     Command = 6 // also resumes, by its flag
	Status      Command = 7
	Load        Command = 9
	TableDeps   Command = 11
	TableStatus Command = 12
)

var commandNames = map[Command]string{
	Version: "version", Create: "create", Remove: "remove", Suspend: "suspend",
	Status: "status", Load: "load", TableDeps: "deps", TableStatus: "table-status",
}

// String names the command in errors and transcripts.
func (c Command) String() string {
	if s, ok := commandNames[c]; ok {
		return s
	}
	return fmt.Sprintf("command-%d", uint8(c))
}

// number is _IOWR(0xfd, c, struct dm_ioctl).
func (c Command) number() uintptr {
	const readWrite, group = 3, 0xfd
	return readWrite<<30 | headerSize<<16 | group<<8 | uintptr(c)
}

// Sizes and offsets of struct dm_ioctl and struct dm_target_spec; both have
// the same layout on every 64-bit architecture.
const (
	headerSize = 312
	offName    = 48
	nameSize   = 128
	offUUID    = offName + nameSize
	uuidSize   = 129
	specSize   = 40
	typeSize   = 16
)

const (
	flagReadOnly    = 1 << 0
	flagSuspend     = 1 << 1
	flagStatusTable = 1 << 4
	flagBufferFull  = 1 << 8
)

// maxTargets bounds what a reply may claim; tables here have one target, a
// multipath map has one too.
const maxTargets = 1024

// header is struct dm_ioctl without the sizes, which encode fills in.
type header struct {
	version   [3]uint32
	targets   uint32
	openCount int32
	flags     uint32
	dev       uint64
	name      string
	uuid      string
}

// encode lays out the header and the payload in a buffer of at least size.
func (h header) encode(payload []byte, size int) ([]byte, error) {
	if len(h.name) >= nameSize || len(h.uuid) >= uuidSize {
		return nil, fmt.Errorf("name or uuid too long: %q, %q", h.name, h.uuid)
	}
	size = max(size, headerSize+len(payload))
	buf := make([]byte, size)
	le := binary.LittleEndian
	le.PutUint32(buf[0:], 4) // interface 4.0.0: what every kernel since 2.6 accepts
	le.PutUint32(buf[12:], uint32(size))
	le.PutUint32(buf[16:], headerSize)
	le.PutUint32(buf[20:], h.targets)
	le.PutUint32(buf[28:], h.flags)
	le.PutUint64(buf[40:], h.dev)
	copy(buf[offName:], h.name)
	copy(buf[offUUID:], h.uuid)
	copy(buf[headerSize:], payload)
	return buf, nil
}

// decodeHeader reads a reply: the header and the payload it points at.
func decodeHeader(buf []byte) (header, []byte, error) {
	if len(buf) < headerSize {
		return header{}, nil, fmt.Errorf("reply of %d bytes is shorter than its header", len(buf))
	}
	le := binary.LittleEndian
	h := header{
		targets: le.Uint32(buf[20:]), openCount: int32(le.Uint32(buf[24:])), flags: le.Uint32(buf[28:]),
		dev:  le.Uint64(buf[40:]),
		name: cString(buf[offName : offName+nameSize]), uuid: cString(buf[offUUID : offUUID+uuidSize]),
	}
	for i := range h.version {
		h.version[i] = le.Uint32(buf[4*i:])
	}
	size, start := uint64(le.Uint32(buf[12:])), uint64(le.Uint32(buf[16:]))
	if size > uint64(len(buf)) {
		return header{}, nil, fmt.Errorf("reply claims %d of %d bytes", size, len(buf))
	}
	// A reply without data ends before the header does: the kernel leaves out
	// the header's tail.
	return h, buf[min(start, size):size], nil
}

// A Target is one line of a table: sectors of 512 bytes, a type, its
// parameters.
type Target struct {
	Start  uint64
	Length uint64
	Type   string
	Params string
}

// encodeTargets writes dm_target_specs, each followed by its parameters, a
// NUL and padding to 8 bytes; next counts from the start of its own spec.
func encodeTargets(table []Target) ([]byte, error) {
	var out []byte
	for _, t := range table {
		if len(t.Type) >= typeSize {
			return nil, fmt.Errorf("target type %q too long", t.Type)
		}
		next := align8(specSize + len(t.Params) + 1)
		spec := make([]byte, next)
		binary.LittleEndian.PutUint64(spec[0:], t.Start)
		binary.LittleEndian.PutUint64(spec[8:], t.Length)
		binary.LittleEndian.PutUint32(spec[20:], uint32(next))
		copy(spec[24:24+typeSize], t.Type)
		copy(spec[specSize:], t.Params)
		out = append(out, spec...)
	}
	return out, nil
}

// decodeTargets reads the targets of a status reply. There, unlike in a load,
// next counts from the start of the payload.
func decodeTargets(payload []byte, count uint32) ([]Target, error) {
	if count > maxTargets {
		return nil, fmt.Errorf("reply claims %d targets", count)
	}
	table := make([]Target, 0, count)
	for at := 0; uint32(len(table)) < count; {
		if at > len(payload)-specSize {
			return nil, fmt.Errorf("target %d starts at %d of %d bytes", len(table), at, len(payload))
		}
		spec := payload[at:]
		table = append(table, Target{
			Start: binary.LittleEndian.Uint64(spec[0:]), Length: binary.LittleEndian.Uint64(spec[8:]),
			Type: cString(spec[24 : 24+typeSize]), Params: cString(spec[specSize:]),
		})
		next := binary.LittleEndian.Uint32(spec[20:])
		if uint64(next) < uint64(at+specSize) || uint64(next) > uint64(len(payload)) {
			if uint32(len(table)) == count {
				break
			}
			return nil, fmt.Errorf("target %d: next is at %d of %d bytes", len(table), next, len(payload))
		}
		at = int(next)
	}
	return table, nil
}

// decodeDeps reads struct dm_target_deps: a count, padding, device numbers.
func decodeDeps(payload []byte) ([]Device, error) {
	if len(payload) < 8 {
		return nil, fmt.Errorf("dependencies in %d bytes", len(payload))
	}
	count := binary.LittleEndian.Uint32(payload)
	if uint64(count) > uint64(len(payload)-8)/8 {
		return nil, fmt.Errorf("%d dependencies in %d bytes", count, len(payload))
	}
	deps := make([]Device, count)
	for i := range deps {
		deps[i] = Device(binary.LittleEndian.Uint64(payload[8+8*i:]))
	}
	return deps, nil
}

// Device is a device number as the kernel's ABI encodes it.
type Device uint64

// Major returns the driver's part of the number.
func (d Device) Major() uint32 { return unix.Major(uint64(d)) }

// Minor returns the device's part of the number.
func (d Device) Minor() uint32 { return unix.Minor(uint64(d)) }

// String writes major:minor, which tables and sysfs understand.
func (d Device) String() string { return fmt.Sprintf("%d:%d", d.Major(), d.Minor()) }

func align8(n int) int { return (n + 7) &^ 7 }

// cString cuts at the first NUL.
func cString(b []byte) string {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		b = b[:i]
	}
	return string(b)
}
