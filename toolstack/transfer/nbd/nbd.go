// Package nbd is both ends of NBD: a client that has an export of a server as a
// disk.Device, for what QEMU's programs lend out, and a server that lends a disk.Device
// out to be read, for backups.
//
// Both speak what QEMU does (NetworkBlockDevice/nbd, doc/proto.md): the fixed newstyle
// handshake, NBD_OPT_GO, structured replies, and contexts that say which parts of a disk
// are zero, changed, or in which layer. Without structured replies a disk is one extent
// of data.
//
// What is kept: a request has at most a few MiB in memory and few are under way, so that
// memory is bounded by the connections there are. No length or offset that comes is
// believed before it was compared with what was asked, or with the disk. The first thing
// that does not fit ends the connection, and every call from then on fails with what that
// was. A server that wants TLS of a client hears nothing before it. Exports are opened only
// by their names, and none are told.
//
// A Client may be used by many goroutines; one more reads replies until the connection
// ends. A Server has one for each of its clients, and some for that one's requests.
package nbd

import (
	"errors"
	"fmt"
	"syscall"
)

// ErrProtocol is a server that does not speak as it should.
var ErrProtocol = errors.New("not NBD as it is written")

// ErrGone is a server that hung up.
var ErrGone = errors.New("the server has gone")

func broken(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// Numbers of the handshake.
const (
	magicServer = 0x4e42444d41474943 // NBDMAGIC
	magicOption = 0x49484156454f5054 // IHAVEOPT
	magicAnswer = 0x0003e889045565a9

	fixedNewstyle = 1
	noZeroes      = 2

	optStartTLS   = 5
	optGo         = 7
	optStructured = 8
	optSetContext = 10

	ack         = 1
	infoReply   = 3
	contextName = 4
	errorReply  = 1 << 31

	infoExport    = 0
	infoBlockSize = 3
)

// Numbers of what follows.
const (
	magicRequest    = 0x25609513
	magicSimple     = 0x67446698
	magicStructured = 0x668e33ef

	hasReadOnly    = 1 << 1
	hasFlush       = 1 << 2
	hasWriteZeroes = 1 << 6

	cmdRead        = 0
	cmdWrite       = 1
	cmdDisconnect  = 2
	cmdFlush       = 3
	cmdTrim        = 4
	cmdWriteZeroes = 6
	cmdStatus      = 7

	chunkDone   = 1
	chunkNone   = 0
	chunkData   = 1
	chunkHole   = 2
	chunkStatus = 5
	chunkError  = 1 << 15
)

var commands = map[uint16]string{
	cmdRead: "read", cmdWrite: "write", cmdFlush: "flush", cmdWriteZeroes: "zero", cmdStatus: "ask about",
}

// Bounds.
const (
	step       = 2 << 20       // bytes of a read or write
	longStep   = 1 << 30       // bytes of a request that brings none
	inFlight   = 16            // requests
	maxOption  = 64 << 10      // bytes of an answer in the handshake
	maxStatus  = 4 + 8*(1<<17) // bytes of an answer about extents: QEMU's own bound
	maxMessage = 4 << 10       // of an error
)

// refusals of options, by number.
var refusals = map[uint32]string{
	1: "it does not know the option", 2: "it forbids that", 3: "the request is invalid", 4: "this platform cannot",
	5: "TLS is required", 6: "there is no such export", 7: "it shuts down", 8: "it wants to be asked for block sizes", 9: "the request is too long",
}

// failure is the error a number on the wire means; the numbers are Linux's.
func failure(n uint32) error {
	switch e := syscall.Errno(n); e {
	case syscall.EPERM, syscall.EIO, syscall.ENOMEM, syscall.EINVAL, syscall.ENOSPC, syscall.EOVERFLOW, syscall.ENOTSUP, syscall.ESHUTDOWN:
		return e
	}
	return fmt.Errorf("error %d: %w", n, syscall.EINVAL) // as the protocol has it
}
