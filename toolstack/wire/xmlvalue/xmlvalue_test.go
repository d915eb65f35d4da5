package xmlvalue

import (
	"strings"
	"testing"

	"cairn/toolstack/api"
)

func read(text string, limit int) (api.Value, error) {
	p := New(strings.NewReader(text))
	p.Limit(limit)
	if err := p.Start("value"); err != nil {
		return api.Value{}, err
	}
	v, err := p.Value()
	if err == nil {
		err = p.NothingMore()
	}
	return v, err
}

func TestLimit(t *testing.T) {
	const three = "<value><array><data><value>a</value><value/></data></array></value>\n<!-- end -->"
	if v, err := read(three, 3); err != nil || len(v.Items) != 2 || v.Items[0].Text != "a" {
		t.Errorf("%+v, %v", v, err)
	}
	if _, err := read(three, 2); err == nil {
		t.Error("more values pass than may")
	}
}

func FuzzValue(f *testing.F) {
	for _, seed := range []string{
		"<value>text</value>", "<value><i4>7</i4></value>", "<value><nil/></value>", "<value><boolean>1</boolean></value>",
		"<value><struct><member><name>a</name><value><array><data><value/></data></array></value></member></struct></value>",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if v, err := read(text, 100); err == nil && count(v) > 100 {
			t.Errorf("%d values passed", count(v))
		}
	})
}

func count(v api.Value) int {
	n := 1
	for _, item := range v.Items {
		n += count(item)
	}
	return n
}
