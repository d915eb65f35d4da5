package interpose

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// Layout of a message of libvirt's protocol: a length, and then program, version,
// procedure, type, serial number and status, each four bytes.
const (
	headerBytes = 28
	maxMessage  = 64 << 20
	program     = 0x20008086

	typeCall  = 0
	typeReply = 1
	typeEvent = 2
)

// procedures are names of numbers of the protocol: what changes a domain, and the
// events that say so.
var procedures = map[uint32]string{
	10: "create", 28: "resume", 34: "suspend", 160: "attach device", 161: "detach device", 174: "update device", 185: "snapshot",
	204: "set memory", 234: "destroy", 237: "end block job", 258: "shutdown", 290: "block commit",
	318: "event life-cycle", 333: "event device removed",
}

// Libvirt stands before libvirtd.
func Libvirt(peer, path, target string, gate Gate) (*Proxy, error) {
	p, err := listen(path, target, gate)
	if err != nil {
		return nil, err
	}
	go func() {
		for {
			c, err := p.l.Accept()
			if err != nil {
				return
			}
			go p.relay(peer, c)
		}
	}()
	return p, nil
}

// relay joins one connection to the daemon; when one side ends, so does the other.
func (p *Proxy) relay(peer string, asker net.Conn) {
	if !p.hold(asker) {
		return
	}
	defer p.drop(asker)
	daemon, err := net.Dial("unix", p.target)
	if err != nil || !p.hold(daemon) {
		return
	}
	defer p.drop(daemon)
	go func() {
		defer p.drop(daemon)
		_ = p.copy(daemon, asker, func(h header) bool {
			s := Step{peer, h.name()}
			return h.kind != typeCall || p.gate(s, Asked) && p.gate(s, Handed)
		})
	}()
	_ = p.copy(asker, daemon, func(h header) bool {
		return h.kind != typeReply && h.kind != typeEvent || p.gate(Step{peer, h.name()}, Answered)
	})
}

// copy hands messages on while pass lets it.
func (p *Proxy) copy(to io.Writer, from io.Reader, pass func(header) bool) error {
	for {
		b, h, err := message(from)
		if err != nil {
			return err
		}
		if !pass(h) {
			return io.ErrClosedPipe
		}
		if _, err := to.Write(b); err != nil {
			return err
		}
	}
}

type header struct{ program, procedure, kind uint32 }

// name is the number for what has no name here.
func (h header) name() string {
	if n := procedures[h.procedure]; n != "" && h.program == program {
		return n
	}
	return fmt.Sprintf("procedure %d of %#x", h.procedure, h.program)
}

func message(from io.Reader) ([]byte, header, error) {
	var size [4]byte
	if _, err := io.ReadFull(from, size[:]); err != nil {
		return nil, header{}, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n < headerBytes || n > maxMessage {
		return nil, header{}, fmt.Errorf("a message of %d bytes", n)
	}
	b := make([]byte, n)
	copy(b, size[:])
	if _, err := io.ReadFull(from, b[len(size):]); err != nil {
		return nil, header{}, err
	}
	word := func(i int) uint32 { return binary.BigEndian.Uint32(b[4*i:]) }
	return b, header{program: word(1), procedure: word(3), kind: word(4)}, nil
}
