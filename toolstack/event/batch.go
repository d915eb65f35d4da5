package event

import (
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// batch is the answer of event.from.
type batch struct {
	snap    *db.Snapshot
	news    *db.Snapshot // that of messages, which may be later
	sub     *subscription
	changes []db.Change // additions, then modifications, then deletions
	token   Token
}

// everything makes all wanted objects of some classes additions.
func (b *batch) everything(snap *db.Snapshot, of func(*api.ClassInfo) bool) {
	classes := api.Classes()
	for i := range classes {
		c := &classes[i]
		if !of(c) || !b.sub.class(c) {
			continue
		}
		snap.Objects(c, func(o *db.Object) bool {
			if b.sub.object(c, o.Ref()) {
				b.changes = append(b.changes, db.Change{Class: c, Ref: o.Ref(), Op: db.Add, Generation: o.Modified()})
			}
			return true
		})
	}
}

// object is the object of a change as it is now, nil for one that is gone.
func (b *batch) object(ch *db.Change) *db.Object {
	switch {
	case ch.Op == db.Del:
		return nil
	case ch.Class == messageClass:
		return b.news.Object(ch.Class, ch.Ref)
	}
	return b.snap.Object(ch.Class, ch.Ref)
}

var operations = [...]api.EventOperation{
	db.Add: api.EventOperationAdd, db.Mod: api.EventOperationMod, db.Del: api.EventOperationDel,
}

// AppendValue implements api.Result.
func (b *batch) AppendValue(out []byte, e api.Encoding) []byte {
	return b.AppendPieces(out, e, inOne)
}

// inOne keeps an answer in one piece.
func inOne(out []byte) []byte { return out }

// AppendPieces implements api.LongResult: a first batch holds every object.
func (b *batch) AppendPieces(out []byte, e api.Encoding, flush func([]byte) []byte) []byte {
	out = api.OpenStruct(out, e)
	out = api.OpenMember(out, e, "events")
	out = b.appendEvents(out, e, flush)
	out = api.CloseMember(out, e)
	out = api.OpenMember(out, e, "valid_ref_counts")
	out = b.appendCounts(out, e)
	out = api.CloseMember(out, e)
	out = appendMember(out, e, "token", b.token.String())
	return api.CloseStruct(out, e)
}

func (b *batch) appendEvents(out []byte, e api.Encoding, flush func([]byte) []byte) []byte {
	out = api.OpenArray(out, e)
	for i := range b.changes {
		out = flush(b.appendEvent(api.Next(out, e), e, &b.changes[i]))
	}
	return api.CloseArray(out, e)
}

func appendMember(out []byte, e api.Encoding, name, value string) []byte {
	out = api.OpenMember(out, e, name)
	out = api.AppendString(out, e, value)
	return api.CloseMember(out, e)
}

// appendEvent writes one event. The numbers are strings and the timestamp says
// nothing: that is how clients know them.
func (b *batch) appendEvent(out []byte, e api.Encoding, ch *db.Change) []byte {
	out = api.OpenStruct(out, e)
	out = appendMember(out, e, "id", strconv.FormatUint(ch.Generation, 10))
	out = appendMember(out, e, "timestamp", "0.0")
	out = appendMember(out, e, "class", ch.Class.Lower)
	out = appendMember(out, e, "operation", string(operations[ch.Op]))
	out = appendMember(out, e, "ref", ch.Ref)
	if o := b.object(ch); o != nil {
		out = api.OpenMember(out, e, "snapshot")
		out = o.AppendRecord(out, e)
		out = api.CloseMember(out, e)
	}
	return api.CloseStruct(out, e)
}

// appendCounts writes how many objects there are of each wanted class. These
// are the only integers that XML clients get typed.
func (b *batch) appendCounts(out []byte, e api.Encoding) []byte {
	out = api.OpenStruct(out, e)
	classes := api.Classes()
	for i := range classes {
		c := &classes[i]
		if !b.sub.class(c) {
			continue
		}
		n := int64(b.snap.Count(c))
		out = api.OpenMember(out, e, c.Lower)
		if e == api.XML {
			out = append(out, "<value><i4>"...)
			out = strconv.AppendInt(out, n, 10)
			out = append(out, "</i4></value>"...)
		} else {
			out = api.AppendInt(out, e, n)
		}
		out = api.CloseMember(out, e)
	}
	return api.CloseStruct(out, e)
}
