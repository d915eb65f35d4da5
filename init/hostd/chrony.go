package hostd

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"
)

// chronySocket is where chronyd takes commands; root's datagrams may change it.
const chronySocket = "/run/chrony/chronyd.sock"

// chronyd's command protocol, version 6: a request names a command, an answer
// repeats it with a status.
const (
	chronyVersion  = 6
	chronyRequest  = 1
	chronyReply    = 2
	reloadSources  = 70
	chronyReplyLen = 28 // a request must be as long as its answer
	chronyTimeout  = 2 * time.Second
)

// ReloadTime implements System: it has chronyd read its source directory again.
func (*linux) ReloadTime() error { return reloadChrony(chronySocket) }

// reloadChrony sends the command from a socket of its own, which chronyd
// answers to.
func reloadChrony(path string) error {
	own := filepath.Join(filepath.Dir(path), fmt.Sprintf("hostd.%d.sock", os.Getpid()))
	if err := os.Remove(own); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("chronyd: %w", err)
	}
	conn, err := net.DialUnix("unixgram", &net.UnixAddr{Name: own, Net: "unixgram"}, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("chronyd: %w", err)
	}
	defer os.Remove(own)
	defer conn.Close()
	// chronyd runs as its own user and must be able to write the answer.
	if err := os.Chmod(own, 0o666); err != nil {
		return fmt.Errorf("chronyd: %w", err)
	}
	if err := conn.SetDeadline(time.Now().Add(chronyTimeout)); err != nil {
		return fmt.Errorf("chronyd: %w", err)
	}
	if _, err := conn.Write(chronyCommand(reloadSources)); err != nil {
		return fmt.Errorf("chronyd: %w", err)
	}
	var answer [512]byte
	n, err := conn.Read(answer[:])
	if err != nil {
		return fmt.Errorf("chronyd: %w", err)
	}
	return chronyStatus(answer[:n], reloadSources)
}

func chronyCommand(command uint16) []byte {
	b := make([]byte, chronyReplyLen)
	b[0], b[1] = chronyVersion, chronyRequest
	binary.BigEndian.PutUint16(b[4:], command)
	return b
}

func chronyStatus(b []byte, command uint16) error {
	if len(b) < chronyReplyLen || b[0] != chronyVersion || b[1] != chronyReply || binary.BigEndian.Uint16(b[4:]) != command {
		return fmt.Errorf("chronyd: strange answer of %d bytes", len(b))
	}
	if status := binary.BigEndian.Uint16(b[8:]); status != 0 {
		return fmt.Errorf("chronyd: command %d refused with status %d", command, status)
	}
	return nil
}
