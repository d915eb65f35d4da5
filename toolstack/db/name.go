package db

import "cairn/toolstack/api"

// NameOf is what people call the object of a class with a uuid; "" where there is none,
// or it has no name.
func NameOf(r Reader, class *api.ClassInfo, uuid string) string {
	if class == nil || class.NameField < 0 {
		return ""
	}
	o := r.Object(class, r.RefByUUID(class, uuid))
	if o == nil {
		return ""
	}
	v, err := api.ParseJSON(o.Record().AppendField(nil, api.JSON, class.NameField))
	if err != nil {
		return "" // what is encoded here is always read
	}
	return v.Text
}
