package api

import (
	"context"
	"errors"
)

// ErrCancelled is the cause of a Call's context when a client cancelled the
// task.
var ErrCancelled = errors.New("task cancelled")

// Progress is a call's side of its task.
type Progress interface {
	// Ref is the task, or null for a short call that has none.
	Ref() TaskRef
	// Set reports how much is done, from 0 to 1.
	Set(fraction float64)
}

// sparing is how much more must be done before it is told: a stream has far more
// pieces than anybody looks at its task.
const sparing = 0.01

// Sparingly returns what takes a stream's progress, piece by piece, and tells p of it
// when there is some to be seen. It is for one goroutine.
func Sparingly(p Progress) func(fraction float64) {
	told := 0.0
	return func(fraction float64) {
		if fraction >= told+sparing { // not so for what is no number
			told = fraction
			p.Set(fraction)
		}
	}
}

// Call is one message being served. Its context is cancelled with cause
// ErrCancelled when a client cancels the task and without a cause when the
// server stops, but not when the client of a synchronous call goes away: what
// was begun is finished.
type Call struct {
	context.Context
	Session SessionRef
	Message *MessageInfo
	Task    Progress
	Async   bool
	// Gone is closed when the client of a synchronous call is no longer
	// there; nil for others.
	Gone <-chan struct{}
	// Remote is the client's address, for logs.
	Remote string
	// Root says that the client is root on this host, by its socket: one who needs no
	// password to be root here, too.
	Root bool
}

// Result is what a message answers; it writes itself in either encoding.
type Result interface {
	AppendValue(b []byte, e Encoding) []byte
}

// LongResult is a Result that may be longer than anyone wants in memory. It
// offers what it has appended to flush after each part; flush may take that
// away, all but the last byte, and returns the buffer to go on with.
type LongResult interface {
	Result
	AppendPieces(b []byte, e Encoding, flush func(b []byte) []byte) []byte
}

// Handler serves one message. The arguments were checked against the message's
// parameters and defaults were filled in.
type Handler func(c *Call, args []Value) (Result, error)

// Registry binds behaviour to messages. Bind everything before the first call
// is served; it is not safe to do so later.
type Registry struct{ handlers [len(messages)]Handler }

// NewRegistry returns a registry without behaviour.
func NewRegistry() *Registry { return &Registry{} }

// Handler returns the behaviour of a message, nil when there is none.
func (r *Registry) Handler(m *MessageInfo) Handler { return r.handlers[m.ID] }

// Override binds behaviour to any message by name, in place of what the
// description implies; the name must exist.
func (r *Registry) Override(method string, h Handler) {
	m := FindMessage(method)
	if m == nil {
		panic("api: no message " + method)
	}
	r.bind(m.ID, h)
}

// bind binds behaviour to a message by number; the generated Handle functions
// are its typed forms. Binding twice is a mistake of the program.
func (r *Registry) bind(id int, h Handler) {
	if r.handlers[id] != nil {
		panic("api: behaviour of " + messages[id].Method + " bound twice")
	}
	r.handlers[id] = h
}

// Void is the result of a message that has none.
type Void struct{}

// AppendValue implements Result.
func (Void) AppendValue(b []byte, e Encoding) []byte { return AppendString(b, e, "") }

// StringResult is a string as a result, for callers outside generated code.
type StringResult string

// AppendValue implements Result.
func (s StringResult) AppendValue(b []byte, e Encoding) []byte { return AppendString(b, e, string(s)) }

type intResult int64

func (r intResult) AppendValue(b []byte, e Encoding) []byte { return AppendInt(b, e, int64(r)) }

type boolResult bool

func (r boolResult) AppendValue(b []byte, e Encoding) []byte { return AppendBool(b, e, bool(r)) }

type recordResult struct{ Record }

func (r recordResult) AppendValue(b []byte, e Encoding) []byte { return AppendRecord(b, e, r.Record) }

type typedResult[T any] struct {
	value  T
	encode func([]byte, Encoding, T) []byte
}

// AppendValue implements Result.
func (r typedResult[T]) AppendValue(b []byte, e Encoding) []byte { return r.encode(b, e, r.value) }

func resultOf[T any](v T, err error, encode func([]byte, Encoding, T) []byte) (Result, error) {
	if err != nil {
		return nil, err
	}
	return typedResult[T]{v, encode}, nil
}

func answer(r Result, err error) (Result, error) {
	if err != nil {
		return nil, err
	}
	return r, nil
}

// arguments decodes a message's parameters one after another and keeps the
// first error.
type arguments struct {
	message int
	values  []Value
	err     error
}

func (a *arguments) note(i int, err error) {
	if err == nil || a.err != nil {
		return
	}
	if known, ok := err.(*Error); ok {
		a.err = known
		return
	}
	a.err = ErrFieldTypeError(messages[a.message].Params[i].Name)
}

func (a *arguments) text(i int) string {
	s, err := decodeString(&a.values[i])
	a.note(i, err)
	return s
}

func (a *arguments) ref(i int) string { return ParseRef(a.text(i)) }

func (a *arguments) int(i int) int64 {
	n, err := decodeInt(&a.values[i])
	a.note(i, err)
	return n
}

func (a *arguments) bool(i int) bool {
	v, err := decodeBool(&a.values[i])
	a.note(i, err)
	return v
}

func argTexts[T ~string](a *arguments, i int) []T {
	set, err := decodeTexts[T](&a.values[i])
	a.note(i, err)
	return set
}

func argTextMap[K, V ~string](a *arguments, i int) map[K]V {
	m, err := decodeTextMap[K, V](&a.values[i])
	a.note(i, err)
	return m
}

func arg[T any](a *arguments, i int, decode func(*Value) (T, error)) T {
	v, err := decode(&a.values[i])
	a.note(i, err)
	return v
}
