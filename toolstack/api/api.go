// Package api is the management API in Go types: a record per class, references,
// enumerations, error constructors, the tables of classes and messages, and the
// registry in which behaviour is bound to messages. Almost all of it is
// generated from package datamodel; the files here hold what generated code
// stands on.
//
// Everything is static data: a program that links this package pays nothing for
// it at start. Records are plain values. Encoders append to a buffer, use no
// reflection, and give the same bytes for the same record.
package api

//go:generate go run cairn/toolstack/datamodel/cmd/apigen -out .

import (
	"crypto/rand"
	"encoding/hex"
	"strings"
)

// NullRef is how the null reference is written on the wire.
const NullRef = "OpaqueRef:NULL"

const refPrefix = "OpaqueRef:"

// Ref is a reference to a record of type T. The zero value is the null
// reference; it goes out as NullRef and NullRef comes in as "".
type Ref[T any] string

// NewRef returns a fresh reference.
func NewRef[T any]() Ref[T] { return Ref[T](refPrefix + NewUUID()) }

// IsNull reports whether the reference refers to nothing.
func (r Ref[T]) IsNull() bool { return r == "" || r == NullRef }

// String gives the reference as it is written on the wire.
func (r Ref[T]) String() string { return RefText(string(r)) }

// RefText writes a reference of any class as the wire wants it.
func RefText(ref string) string {
	if ref == "" {
		return NullRef
	}
	return ref
}

// ParseRef is the inverse of RefText.
func ParseRef(text string) string {
	if text == NullRef {
		return ""
	}
	return text
}

// NewUUID returns a random (version 4) UUID.
func NewUUID() string {
	var b [16]byte
	rand.Read(b[:]) // never fails, by its documentation
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var s [36]byte
	hex.Encode(s[0:8], b[0:4])
	hex.Encode(s[9:13], b[4:6])
	hex.Encode(s[14:18], b[6:8])
	hex.Encode(s[19:23], b[8:10])
	hex.Encode(s[24:36], b[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}

// Error is what a message answers when it fails: a code from the description
// and parameters, all of them strings.
type Error struct {
	Code   string
	Params []string
}

// Error implements error.
func (e *Error) Error() string {
	if len(e.Params) == 0 {
		return e.Code
	}
	return e.Code + " [" + strings.Join(e.Params, ", ") + "]"
}

// Is makes errors.Is match two errors of the same code.
func (e *Error) Is(target error) bool {
	t, ok := target.(*Error)
	return ok && t.Code == e.Code && len(t.Params) == 0
}

func newError(code string, params ...string) *Error { return &Error{Code: code, Params: params} }
