package console

import "encoding/binary"

// keyboard follows what a viewer of a screen sends, to notice when somebody is there:
// programs ask for pictures on their own, but only people press keys and move the
// pointer. It never changes what is sent. What it does not understand it takes for a
// sign of life from then on, so that nobody is thrown out by mistake.
type keyboard struct {
	phase phase
	want  int    // bytes of the piece that is being gathered
	piece []byte // gathered of it; never more than headLimit
	skip  int64  // bytes of a message yet to come that say nothing
	lost  bool
}

type phase int

const (
	version  phase = iota // ProtocolVersion, 12 bytes
	security              // the chosen security type, from version 3.7 on
	hello                 // ClientInit
	kind                  // the first byte of a message
	head                  // as much of it as tells its length
)

// headLimit is the most that is ever gathered.
const headLimit = 12

// Messages of clients: RFC 6143, section 7.5, and the extensions QEMU has.
const (
	setPixelFormat   = 0
	setEncodings     = 2
	updateRequest    = 3
	keyEvent         = 4
	pointerEvent     = 5
	cutText          = 6
	continuousUpdate = 150
	fence            = 248
	setDesktopSize   = 251
	qemuMessage      = 255
)

// heads says how many bytes, the first included, tell the length of a message.
var heads = map[byte]int{
	setPixelFormat: 1, setEncodings: 4, updateRequest: 1, keyEvent: 1, pointerEvent: 1, cutText: 8,
	continuousUpdate: 1, fence: 9, setDesktopSize: 8, qemuMessage: 2,
}

// fixed are the lengths of messages that are always the same.
var fixed = map[byte]int64{setPixelFormat: 20, updateRequest: 10, keyEvent: 8, pointerEvent: 6, continuousUpdate: 10}

// read takes the next bytes and reports whether somebody is there.
func (k *keyboard) read(p []byte) (active bool) {
	if k.want == 0 {
		k.want = 12
	}
	for len(p) > 0 && !k.lost {
		if k.skip > 0 {
			n := min(k.skip, int64(len(p)))
			k.skip, p = k.skip-n, p[n:]
			continue
		}
		n := min(k.want-len(k.piece), len(p))
		k.piece, p = append(k.piece, p[:n]...), p[n:]
		if len(k.piece) == k.want && k.step() {
			active = true
		}
	}
	return active || k.lost
}

// expect begins the next piece.
func (k *keyboard) expect(next phase, bytes int) { k.phase, k.want, k.piece = next, bytes, k.piece[:0] }

// step acts on a complete piece.
func (k *keyboard) step() (active bool) {
	switch k.phase {
	case version:
		switch string(k.piece) {
		case "RFB 003.003\n": // the server chooses
			k.expect(hello, 1)
		case "RFB 003.007\n", "RFB 003.008\n":
			k.expect(security, 1)
		default:
			k.lost = true
		}
	case security:
		k.lost = k.piece[0] != 1 // none; what others send is theirs to know
		k.expect(hello, 1)
	case hello:
		k.expect(kind, 1)
		return true // somebody has come
	case kind:
		first := k.piece[0]
		n, known := heads[first]
		switch {
		case !known:
			k.lost = true
		case n > 1:
			k.phase, k.want = head, n
		default:
			k.message(fixed[first] - 1)
		}
		return first == keyEvent || first == pointerEvent
	case head:
		return k.head()
	}
	return false
}

// message skips the rest of one and expects the next.
func (k *keyboard) message(rest int64) {
	k.skip = rest
	k.expect(kind, 1)
}

func (k *keyboard) head() (active bool) {
	p := k.piece
	switch p[0] {
	case setEncodings:
		k.message(4 * int64(binary.BigEndian.Uint16(p[2:])))
	case cutText: // a negative length marks the extended form
		n := int64(int32(binary.BigEndian.Uint32(p[4:])))
		k.message(max(n, -n))
		return true
	case fence:
		k.message(int64(p[8]))
	case setDesktopSize:
		k.message(16 * int64(p[6]))
	case qemuMessage:
		return k.qemu()
	}
	return false
}

// qemu are the messages of QEMU's own: keys with their place on the keyboard, and
// sound.
func (k *keyboard) qemu() (active bool) {
	const (
		extendedKey = 0
		audio       = 1
		audioFormat = 2
	)
	p := k.piece
	switch {
	case p[1] == extendedKey:
		k.message(10)
		return true
	case p[1] == audio && len(p) == 2:
		k.want = 4 // the operation
	case p[1] == audio && binary.BigEndian.Uint16(p[2:]) == audioFormat:
		k.message(6)
	case p[1] == audio:
		k.message(0)
	default:
		k.lost = true
	}
	return false
}
