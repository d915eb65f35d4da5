package ova

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/wire/xmlvalue"
)

// Parse reads a description. It refuses with an error of ErrFormat.
func Parse(b []byte) (*Document, error) {
	p := &parser{Reader: xmlvalue.New(bytes.NewReader(b)), ids: map[string]bool{}}
	err := p.document()
	if err == nil {
		err = p.NothingMore()
	}
	switch {
	case errors.Is(err, ErrFormat):
		return nil, err
	case err != nil:
		return nil, malformed("%v", err)
	case !p.versioned:
		return nil, malformed("it has no version")
	}
	return &p.doc, nil
}

type parser struct {
	*xmlvalue.Reader
	doc       Document
	ids       map[string]bool
	versioned bool
}

func (p *parser) document() error {
	if err := p.open("value", "struct"); err != nil {
		return err
	}
	if err := p.Each("member", p.part); err != nil {
		return err
	}
	return p.End()
}

func (p *parser) open(names ...string) error {
	for _, name := range names {
		if err := p.Start(name); err != nil {
			return err
		}
	}
	return nil
}

// part reads a member of the document, up to its end.
func (p *parser) part() error {
	p.Limit(maxValues)
	key, err := p.Key()
	if err != nil {
		return err
	}
	if key == "objects" {
		if err := p.objects(); err != nil {
			return err
		}
		return p.End()
	}
	v, err := p.Value()
	if err == nil && key == "version" {
		p.versioned = true
		err = p.doc.Version.fill(&v)
	}
	if err != nil {
		return err
	}
	return p.End()
}

// objects reads the list inside <value>, up to the value's end.
func (p *parser) objects() error {
	if err := p.open("array", "data"); err != nil {
		return err
	}
	err := p.Each("value", func() error {
		p.Limit(maxValues)
		v, err := p.Value()
		if err != nil {
			return fmt.Errorf("object %d: %w", len(p.ids), err)
		}
		return p.object(&v)
	})
	if err != nil {
		return err
	}
	return errors.Join(p.End(), p.End()) // of array and value
}

// object makes a record of a described object, if its class is known.
func (p *parser) object(v *api.Value) error {
	id, class := textOf(v, "id"), textOf(v, "class")
	snapshot, ok := v.Get("snapshot")
	switch {
	case id == "" || class == "" || !ok || snapshot.Kind != api.StructValue:
		return malformed("an object %.80q of class %.80q without a record", id, class)
	case p.ids[id]:
		return malformed("two objects %.80q", id)
	case len(p.ids) == maxObjects:
		return malformed("more than %d objects", maxObjects)
	}
	p.ids[id] = true
	info := api.FindClass(class)
	if info == nil || info.New == nil {
		return nil
	}
	r, err := record(info, snapshot)
	if err != nil {
		return malformed("%s %.80q: %v", info.Name, id, err)
	}
	p.doc.Objects = append(p.doc.Objects, Object{id, r})
	return nil
}

// record fills a fresh one with what is known of the fields that are known.
func record(class *api.ClassInfo, v *api.Value) (api.Record, error) {
	r := class.New()
	for i, key := range v.Keys {
		n := class.FieldByName(key)
		if n < 0 {
			continue
		}
		item := v.Items[i]
		if !known(&item, class.Fields[n].Type) {
			continue
		}
		if err := r.SetField(n, &item); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	return r, nil
}

// known leaves out of a value what is of no enumeration here, and reports whether
// anything is left of it.
func known(v *api.Value, t *api.TypeInfo) bool {
	switch {
	case t.Kind == api.KindEnum:
		return v.Kind != api.StringValue || t.Enum().Has(v.Text)
	case t.Kind == api.KindSet && v.Kind == api.ArrayValue:
		kept := v.Items[:0:0]
		for _, item := range v.Items {
			if known(&item, t.Elem()) {
				kept = append(kept, item)
			}
		}
		v.Items = kept
	case t.Kind == api.KindMap && v.Kind == api.StructValue:
		keys, items := v.Keys[:0:0], v.Items[:0:0]
		for i, k := range v.Keys {
			key := api.Value{Kind: api.StringValue, Text: k}
			if item := v.Items[i]; known(&key, t.Key()) && known(&item, t.Elem()) {
				keys, items = append(keys, k), append(items, item)
			}
		}
		v.Keys, v.Items = keys, items
	}
	return true
}

func (v *Version) fill(from *api.Value) error {
	v.Hostname, v.Date = textOf(from, "hostname"), textOf(from, "date")
	v.ProductVersion, v.ProductBrand = textOf(from, "product_version"), textOf(from, "product_brand")
	v.BuildNumber = textOf(from, "build_number")
	for name, field := range map[string]*int64{"xapi_major": &v.Major, "xapi_minor": &v.Minor, "export_vsn": &v.Export} {
		text := textOf(from, name)
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil && text != "" {
			return malformed("%s is %.40q", name, text)
		}
		*field = n
	}
	return nil
}

// textOf is the text of a member, "" where there is none.
func textOf(v *api.Value, name string) string {
	item, ok := v.Get(name)
	if !ok || item.Kind == api.ArrayValue || item.Kind == api.StructValue {
		return ""
	}
	return item.Text
}
