// Package tool runs the programs of others that work on disks and images.
//
// Whoever calls it decides what to run; this package decides how: without a shell,
// without the caller's environment, in a bounded time, dying with hostd. A
// confined program reads bytes that a guest may have written, so it runs as
// QEMU's user, sees neither the network nor other processes, and has little
// memory; what it can harm are the images it was given.
//
// A Runner may be used from many goroutines.
package tool

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"
)

// Command is one run of a program.
type Command struct {
	// Name is the program's, without a directory.
	Name string
	Args []string
	// Env are further variables, as NAME=value.
	Env []string
	// Confined says that the program works on content that is not trusted.
	Confined bool
	// Files are handed to it, as descriptors from 3 on.
	Files []*os.File
	// Gently says that the program is asked to end, before it is made to, when the
	// context does: it has things to put in order. One that succeeds then is no error.
	Gently bool
	// Limit bounds the time it takes; 0 leaves that to the context.
	Limit time.Duration
	// Output, if set, receives what it prints as it comes, instead of the result.
	Output func([]byte)
}

func (c Command) String() string { return c.Name + " " + strings.Join(c.Args, " ") }

// Runner runs programs and returns what they print. A program that ends with
// another code than 0 is a *Failure, which carries its output too.
type Runner interface {
	Run(ctx context.Context, c Command) ([]byte, error)
}

// Failure is how a program ended that did not succeed.
type Failure struct {
	Name   string
	Code   int // -1: by a signal
	Output []byte
	Stderr string
}

func (f *Failure) Error() string {
	return fmt.Sprintf("%s: exit code %d: %s", f.Name, f.Code, lastLine(f.Stderr))
}

// Code is a Failure's exit code; ok is false for other errors.
func Code(err error) (code int, ok bool) {
	var f *Failure
	if !errors.As(err, &f) {
		return 0, false
	}
	return f.Code, true
}

// Says reports whether a program failed with a message that contains text.
func Says(err error, text string) bool {
	var f *Failure
	return errors.As(err, &f) && strings.Contains(f.Stderr, text)
}

// lastLine is what programs end with: why.
func lastLine(s string) string {
	s = strings.TrimSpace(s)
	return s[strings.LastIndexByte(s, '\n')+1:]
}

// bounded keeps the first bytes written to it.
type bounded struct {
	bytes.Buffer
	max int
}

func (b *bounded) Write(p []byte) (int, error) {
	if room := b.max - b.Len(); room > 0 {
		b.Buffer.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}

// stream hands on what is written to it.
type stream func([]byte)

func (s stream) Write(p []byte) (int, error) {
	s(p)
	return len(p), nil
}
