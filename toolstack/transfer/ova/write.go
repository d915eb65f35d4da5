package ova

import "cairn/toolstack/api"

// Append writes a description.
func (d *Document) Append(b []byte) []byte {
	b = append(b, "<?xml version='1.0'?>\n"...)
	b = api.OpenStruct(b, api.XML)
	b = member(b, "version", d.Version.append)
	b = member(b, "objects", func(b []byte) []byte {
		b = api.OpenArray(b, api.XML)
		for _, o := range d.Objects {
			b = o.append(b)
		}
		return api.CloseArray(b, api.XML)
	})
	return append(api.CloseStruct(b, api.XML), '\n')
}

func member(b []byte, name string, value func([]byte) []byte) []byte {
	return api.CloseMember(value(api.OpenMember(b, api.XML, name)), api.XML)
}

func text(s string) func([]byte) []byte {
	return func(b []byte) []byte { return api.AppendString(b, api.XML, s) }
}

func number(n int64) func([]byte) []byte {
	return func(b []byte) []byte { return api.AppendInt(b, api.XML, n) }
}

func (v Version) append(b []byte) []byte {
	b = api.OpenStruct(b, api.XML)
	b = member(b, "hostname", text(v.Hostname))
	b = member(b, "date", text(v.Date))
	b = member(b, "product_version", text(v.ProductVersion))
	b = member(b, "product_brand", text(v.ProductBrand))
	b = member(b, "build_number", text(v.BuildNumber))
	b = member(b, "xapi_major", number(v.Major))
	b = member(b, "xapi_minor", number(v.Minor))
	b = member(b, "export_vsn", number(v.Export))
	return api.CloseStruct(b, api.XML)
}

func (o Object) append(b []byte) []byte {
	b = api.OpenStruct(b, api.XML)
	b = member(b, "class", text(o.Record.Class().Name))
	b = member(b, "id", text(o.ID))
	b = member(b, "snapshot", func(b []byte) []byte { return api.AppendRecord(b, api.XML, o.Record) })
	return api.CloseStruct(b, api.XML)
}
