package api

import "strings"

// Kind is the shape of a type.
type Kind uint8

// The kinds of types.
const (
	KindVoid Kind = iota
	KindString
	KindInt
	KindFloat
	KindBool
	KindTime
	KindEnum
	KindRef
	KindRecord
	KindSet
	KindMap
	KindOption
	KindBatch
)

// TypeInfo describes a type. It names other tables by number, because static
// tables of Go must not point at each other in a circle.
type TypeInfo struct {
	Kind  Kind
	Text  string // as the description writes it: "VM ref set"
	key   int16
	elem  int16
	class int16
	enum  int16
}

// Key is the type of a map's keys.
func (t *TypeInfo) Key() *TypeInfo { return &types[t.key] }

// Elem is the type of what a map, set or option holds.
func (t *TypeInfo) Elem() *TypeInfo { return &types[t.elem] }

// Class is the class a reference or record belongs to.
func (t *TypeInfo) Class() *ClassInfo { return &classes[t.class] }

// Enum is the enumeration, for KindEnum.
func (t *TypeInfo) Enum() *EnumInfo { return &enums[t.enum] }

// EnumInfo describes an enumeration.
type EnumInfo struct {
	Name   string
	Values []string
}

// Has reports whether s is one of the values.
func (e *EnumInfo) Has(s string) bool {
	for _, v := range e.Values {
		if v == s {
			return true
		}
	}
	return false
}

// Qualifier says who may change a field.
type Qualifier uint8

// The qualifiers of fields.
const (
	RO       Qualifier = iota // changes at run time only
	StaticRO                  // given to the constructor
	RW                        // has a setter
)

// String names the qualifier as the description does.
func (q Qualifier) String() string { return [...]string{"RO", "StaticRO", "RW"}[q] }

// State is the stage of life of a class, field or message.
type State uint8

// The states.
const (
	Published State = iota
	Prototyped
	Deprecated
	Removed
	Hidden
)

// Op says what an implicit message does; OpExplicit is behaviour by hand. The
// values are generated.
type Op uint8

// LinkInfo is one end of a relation: the field on this class and the field of
// the class on the other side.
type LinkInfo struct {
	Field      int
	OtherField int
	other      int16
}

// Other is the class on the other side.
func (l *LinkInfo) Other() *ClassInfo { return &classes[l.other] }

// ClassInfo describes a class.
type ClassInfo struct {
	ID       int
	Name     string
	Lower    string // as events name it
	InDB     bool
	Volatile bool
	Events   bool
	State    State
	Fields   []FieldInfo
	// UUIDField and NameField are indexes into Fields, or -1.
	UUIDField, NameField int
	// Forward are the references this class stores whose other side is a set
	// the database maintains; Reverse are those sets.
	Forward, Reverse []LinkInfo
	// New returns a record holding the declared defaults, nil for a class
	// that is only a name for messages.
	New func() Record
}

// FieldByName returns the index of the named field, or -1.
func (c *ClassInfo) FieldByName(name string) int {
	for i := range c.Fields {
		if c.Fields[i].Name == name {
			return i
		}
	}
	return -1
}

// FieldInfo describes a field.
type FieldInfo struct {
	Name      string
	Type      *TypeInfo
	Qualifier Qualifier
	State     State
	Required  bool // a constructor refuses a record without it
	Derived   bool // a set kept by the database, not stored
}

// ParamInfo describes a parameter; Default holds for an optional one.
type ParamInfo struct {
	Name     string
	Type     *TypeInfo
	Optional bool
	Default  Value
}

// MessageInfo describes a message.
type MessageInfo struct {
	ID        int
	Method    string // "VM.start"
	Class     *ClassInfo
	Params    []ParamInfo // without the session
	Result    *TypeInfo   // nil for void
	Op        Op
	Field     int // the field an implicit message is about, or -1
	Role      string
	State     State
	Async     bool
	NoSession bool
	Hidden    bool
	Internal  bool // between hosts of a pool only
	// Emergency marks what is served while the host cannot reach its pool.
	Emergency bool
}

// Name is the message without its class: "start".
func (m *MessageInfo) Name() string { return m.Method[strings.IndexByte(m.Method, '.')+1:] }

// RequiredParams counts the parameters that may not be left out.
func (m *MessageInfo) RequiredParams() int {
	n := len(m.Params)
	for n > 0 && m.Params[n-1].Optional {
		n--
	}
	return n
}

// Classes returns all classes in the order of the description. The slice is
// shared and must not be changed.
func Classes() []ClassInfo { return classes[:] }

// Messages returns all messages. The slice is shared and must not be changed.
func Messages() []MessageInfo { return messages[:] }

// FindClass returns the class of the given name, whatever its case, or nil.
func FindClass(name string) *ClassInfo {
	for i := range classes {
		if strings.EqualFold(classes[i].Name, name) {
			return &classes[i]
		}
	}
	return nil
}

// FindMessage returns the message a client calls "VM.start" or "VM_start", or
// nil.
func FindMessage(method string) *MessageInfo {
	lo, hi := 0, len(messages)
	for lo < hi {
		mid := (lo + hi) / 2
		switch c := compareMethods(messages[mid].Method, method); {
		case c < 0:
			lo = mid + 1
		case c > 0:
			hi = mid
		case messages[mid].Method == method || !strings.Contains(method, "."):
			return &messages[mid]
		default:
			return nil
		}
	}
	return nil
}

// compareMethods orders names with the dot taken for an underscore, so that
// both spellings of a message are neighbours. The generator checks that no two
// messages become equal by it.
func compareMethods(a, b string) int {
	for i := 0; i < len(a) && i < len(b); i++ {
		x, y := a[i], b[i]
		if x == '.' {
			x = '_'
		}
		if y == '.' {
			y = '_'
		}
		if x != y {
			return int(x) - int(y)
		}
	}
	return len(a) - len(b)
}

// AlertPriority is the priority of an alert the toolstack raises by itself, 1
// being the gravest; ok is false for a name that is not one.
func AlertPriority(name string) (priority int64, ok bool) {
	priority, ok = alertPriorities[name]
	return priority, ok
}
