package datamodel

import "strings"

// Op says what an implicit message does.
type Op uint8

// The implicit messages. OpExplicit is the zero value: behaviour is written by
// hand. Package api has the same ones, generated from Ops.
const (
	OpExplicit Op = iota
	OpGetRecord
	OpGetAll
	OpGetAllRecords
	OpGetAllWhere
	OpGetAllRecordsWhere
	OpGetByUUID
	OpGetByName
	OpCreate
	OpDestroy
	OpGet        // one field
	OpSet        // one field
	OpAddKey     // one key of a map
	OpRemoveKey  // one key of a map
	OpAddElem    // one element of a set
	OpRemoveElem // one element of a set
)

// Ops names all kinds of messages in their order.
var Ops = [...]string{
	OpExplicit: "OpExplicit", OpGetRecord: "OpGetRecord", OpGetAll: "OpGetAll", OpGetAllRecords: "OpGetAllRecords",
	OpGetAllWhere: "OpGetAllWhere", OpGetAllRecordsWhere: "OpGetAllRecordsWhere", OpGetByUUID: "OpGetByUUID",
	OpGetByName: "OpGetByName", OpCreate: "OpCreate", OpDestroy: "OpDestroy", OpGet: "OpGet", OpSet: "OpSet",
	OpAddKey: "OpAddKey", OpRemoveKey: "OpRemoveKey", OpAddElem: "OpAddElem", OpRemoveElem: "OpRemoveElem",
}

// AllMessages returns the class's messages, explicit ones first.
func (c *Class) AllMessages() []*Message {
	return append(append([]*Message(nil), c.Messages...), c.Implicit()...)
}

// Required reports whether a constructor refuses a record without the field.
func (f *Field) Required() bool { return f.Qualifier != RO && !f.HasDefault }

// Implicit derives the messages that follow from the class's fields.
func (c *Class) Implicit() []*Message {
	if !c.InDB {
		return nil
	}
	msgs := c.objectMessages()
	for _, f := range c.Fields {
		msgs = append(msgs, c.fieldMessages(f)...)
	}
	return msgs
}

func (c *Class) ref() *Type    { return &Type{Kind: RefTo, Name: c.Name} }
func (c *Class) record() *Type { return &Type{Kind: RecordOf, Name: c.Name} }
func (c *Class) refs() *Type   { return &Type{Kind: SetOf, Elem: c.ref()} }
func (c *Class) records() *Type {
	return &Type{Kind: MapOf, Key: c.ref(), Elem: c.record()}
}

var stringType = &Type{Kind: String}

func (c *Class) message(op Op, name, role string, result *Type, params ...*Param) *Message {
	m := &Message{
		Name: name, Params: params, Result: result, Role: role, Lifecycle: c.Lifecycle, Implicit: op,
	}
	if result != nil {
		m.ResultText = result.String()
	}
	return m
}

func param(name string, t *Type) *Param { return &Param{Name: name, Type: t, TypeText: t.String()} }

// objectMessages are those about whole objects.
func (c *Class) objectMessages() []*Message {
	msgs := []*Message{
		c.message(OpGetRecord, "get_record", c.ReadRole, c.record(), param("self", c.ref())),
		c.message(OpGetByUUID, "get_by_uuid", c.ReadRole, c.ref(), param("uuid", stringType)),
	}
	if !c.NoGetAll {
		msgs = append(msgs,
			c.message(OpGetAll, "get_all", c.ReadRole, c.refs()),
			c.message(OpGetAllRecords, "get_all_records", c.ReadRole, c.records()),
			c.hidden(OpGetAllWhere, "get_all_where", c.refs()),
			c.hidden(OpGetAllRecordsWhere, "get_all_records_where", c.records()))
	}
	if c.Field("name_label") != nil && !c.NoGetByName {
		msgs = append(msgs, c.message(OpGetByName, "get_by_name_label", c.ReadRole, c.refs(), param("label", stringType)))
	}
	if c.Constructor {
		create := c.message(OpCreate, "create", c.WriteRole, c.ref(), param("args", c.record()))
		destroy := c.message(OpDestroy, "destroy", c.WriteRole, nil, param("self", c.ref()))
		create.Async, destroy.Async = true, true
		msgs = append(msgs, create, destroy)
	}
	return msgs
}

func (c *Class) hidden(op Op, name string, result *Type) *Message {
	m := c.message(op, name, c.ReadRole, result, param("expr", stringType))
	m.Hidden, m.Lifecycle = true, Lifecycle{State: StateHidden}
	return m
}

// fieldMessages are a field's getter and setters.
func (c *Class) fieldMessages(f *Field) []*Message {
	self := param("self", c.ref())
	msgs := []*Message{c.message(OpGet, "get_"+f.Name, f.ReadRole, f.Type, self)}
	if f.Qualifier == RW {
		msgs = append(msgs, c.message(OpSet, "set_"+f.Name, f.WriteRole, nil, self, param("value", f.Type)))
		switch f.Type.Kind {
		case MapOf:
			key := param("key", f.Type.Key)
			msgs = append(msgs,
				c.message(OpAddKey, "add_to_"+f.Name, f.WriteRole, nil, self, key, param("value", f.Type.Elem)),
				c.message(OpRemoveKey, "remove_from_"+f.Name, f.WriteRole, nil, self, key))
		case SetOf:
			value := param("value", f.Type.Elem)
			msgs = append(msgs,
				c.message(OpAddElem, "add_"+f.Name, f.WriteRole, nil, self, value),
				c.message(OpRemoveElem, "remove_"+f.Name, f.WriteRole, nil, self, value))
		}
	}
	for _, m := range msgs {
		m.Lifecycle, m.Field = f.Lifecycle, f
	}
	return msgs
}

// Signature writes the message as one line: parameters with the session,
// result, role, whether it may run as a task, and its state.
func (m *Message) Signature(class string) string {
	var b strings.Builder
	b.WriteString(class + "." + m.Name + "(")
	if !m.NoSession {
		b.WriteString("session_id session ref")
	}
	for i, p := range m.Params {
		if i > 0 || !m.NoSession {
			b.WriteByte(',')
		}
		b.WriteString(p.Name + " " + p.TypeText)
	}
	sync := "sync"
	if m.Async {
		sync = "async"
	}
	result := or(m.ResultText, "void")
	return b.String() + ") " + result + " | " + m.Role + " | " + sync + " | " + m.State
}
