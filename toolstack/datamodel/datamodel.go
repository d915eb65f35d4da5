// Package datamodel is the one description of the management API: classes,
// fields, messages, enumerations, errors, alerts, relations and HTTP handlers.
// Records, encoders, the database's relations, parameter checks and roles all
// derive from it, so nothing about the API is typed by hand twice.
//
// The description lives as data below data/: one file per class, holding only
// what cannot be derived. Implicit messages (getters, setters, get_all_records
// and so on) are derived from the fields; see Implicit.
//
// A Model is immutable once loaded. Programs that serve the API do not load it:
// the generator in cmd/apigen turns it into static tables in package api.
package datamodel

import "strings"

// Qualifiers of a field.
const (
	RO       = "RO"       // changes at run time, never by a client's setter
	StaticRO = "StaticRO" // given to the constructor, fixed afterwards
	RW       = "RW"       // has a setter
)

// RoleInternal is the minimum role of messages that no logged-in user may send.
const RoleInternal = "none(local-root)"

// RoleReadOnly is the lowest role.
const RoleReadOnly = "read-only"

// States of a lifecycle.
const (
	StatePrototyped = "prototyped"
	StatePublished  = "published"
	StateDeprecated = "deprecated"
	StateRemoved    = "removed"
	StateHidden     = "hidden"
)

// Model is the whole description.
type Model struct {
	Classes   []*Class
	Enums     []*Enum
	Errors    []ErrorCode
	Alerts    []Alert
	Relations []Relation
	// Emergency names the messages ("host.shutdown_agent") that are served
	// while a host cannot reach its pool.
	Emergency []string
	HTTP      []HTTPHandler

	classByName map[string]*Class
	enumByName  map[string]*Enum
}

// Class returns the class of the given name, or nil.
func (m *Model) Class(name string) *Class { return m.classByName[name] }

// Enum returns the enumeration of the given name, or nil.
func (m *Model) Enum(name string) *Enum { return m.enumByName[name] }

// Lifecycle says when a thing appeared, was deprecated and was removed, as
// space-separated "stage:release" items, and the state that results.
type Lifecycle struct {
	Life  string `json:"life,omitempty"`
	State string `json:"state,omitempty"`
}

// resolve fills State from the last stage of Life where the data leaves it out.
func (l *Lifecycle) resolve() {
	if l.State != "" {
		return
	}
	l.State = StatePublished
	for _, item := range strings.Fields(l.Life) {
		switch stage, _, _ := strings.Cut(item, ":"); stage {
		case StatePrototyped, StatePublished, StateDeprecated, StateRemoved:
			l.State = stage
		}
	}
}

// Class is one class of objects.
type Class struct {
	Name string `json:"name"`
	Lifecycle
	InDB        bool   `json:"in_db"`       // has objects in the pool database
	Volatile    bool   `json:"volatile"`    // objects do not outlive the process
	Constructor bool   `json:"constructor"` // has implicit create and destroy
	Events      bool   `json:"events"`      // changes are delivered by event.from
	NoGetAll    bool   `json:"no_get_all"`
	NoGetByName bool   `json:"no_get_by_name"`
	ReadRole    string `json:"read_role"`
	WriteRole   string `json:"write_role"`
	Fields      []*Field
	Messages    []*Message // explicit ones only; see Model.AllMessages
}

// Field returns the field of the given name, or nil.
func (c *Class) Field(name string) *Field {
	for _, f := range c.Fields {
		if f.Name == name {
			return f
		}
	}
	return nil
}

// Field is one field of a class.
type Field struct {
	Name      string `json:"name"`
	TypeText  string `json:"type"`
	Qualifier string `json:"access"`
	// Default is the JSON value a constructor uses when the client leaves the
	// field out, decoded with numbers kept as json.Number; see HasDefault.
	Default    any
	HasDefault bool
	ReadRole   string `json:"read_role"`
	WriteRole  string `json:"write_role"`
	Lifecycle

	Type *Type `json:"-"`
}

// Message is one message of a class.
type Message struct {
	Name   string   `json:"name"`
	Params []*Param `json:"params"` // without the session
	// NoSession marks the few messages that do not begin with a session.
	NoSession  bool     `json:"no_session"`
	ResultText string   `json:"result"`
	Errors     []string `json:"errors"`
	Async      bool     `json:"async"`
	Role       string   `json:"role"`
	Hidden     bool     `json:"hidden"`
	Internal   bool     `json:"internal"` // between the hosts of a pool only
	Lifecycle

	Result   *Type  `json:"-"` // nil for void
	Implicit Op     `json:"-"` // zero for explicit messages
	Field    *Field `json:"-"` // what an implicit message is about, if a field
}

// Param is one parameter of a message. Those with a default may be left out
// from the end of the list.
type Param struct {
	Name       string `json:"name"`
	TypeText   string `json:"type"`
	Default    any
	HasDefault bool

	Type *Type `json:"-"`
}

// Enum is an enumeration with its values in declared order.
type Enum struct {
	Name   string
	Values []string
}

// ErrorCode is one error a message may answer with. Params is nil where no
// parameter list is declared.
type ErrorCode struct {
	Code   string   `json:"code"`
	Params []string `json:"params"`
}

// Alert is a well-known message object and its priority, 1 being the gravest.
type Alert struct {
	Name     string `json:"name"`
	Priority int    `json:"priority"`
}

// Relation ties a reference field to the set on the other side that the
// database maintains. Where both sides are sets the first one is stored.
type Relation struct {
	From, FromField string
	To, ToField     string
}

// HTTPHandler is one of the streams served beside the RPC endpoints.
type HTTPHandler struct {
	Action     string          `json:"action"`
	Method     string          `json:"method"`
	URI        string          `json:"uri"`
	InSDK      bool            `json:"in_sdk"`
	Args       []HTTPArg       `json:"args"`
	MinRole    string          `json:"min_role"`
	SubActions []HTTPSubAction `json:"sub_actions"`
	RoleInHTTP bool            `json:"rbac_checked_in_http_layer"`
}

// HTTPArg is one query argument of a handler.
type HTTPArg struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
}

// HTTPSubAction is a use of a handler that needs another role than the handler.
type HTTPSubAction struct {
	Action  string `json:"action"`
	MinRole string `json:"min_role"`
}
