package config

import (
	"bytes"
	"fmt"

	"go.yaml.in/yaml/v3"
)

// Edit returns the text of a document with top-level keys set to values: text,
// or a list of text; an empty list takes the key away. All else stays as its
// author wrote it, comments too. An empty text is the default document's.
func Edit(text []byte, values map[string]any) ([]byte, error) {
	if len(text) == 0 {
		text = fmt.Appendf(nil, "version: %d\n", Version)
	}
	if _, err := Parse(text); err != nil {
		return nil, err
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	root := doc.Content[0]
	for key, value := range values {
		if err := setKey(root, key, value); err != nil {
			return nil, fmt.Errorf("%s: %w", key, err)
		}
	}
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&doc); err != nil {
		return nil, err
	}
	if _, err := Parse(b.Bytes()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func setKey(root *yaml.Node, key string, value any) error {
	var v yaml.Node
	if err := v.Encode(value); err != nil {
		return err
	}
	at := -1
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == key {
			at = i
		}
	}
	gone := v.Kind == yaml.SequenceNode && len(v.Content) == 0
	switch {
	case gone && at >= 0:
		root.Content = append(root.Content[:at], root.Content[at+2:]...)
	case gone:
	case at >= 0:
		v.LineComment, v.FootComment = root.Content[at+1].LineComment, root.Content[at+1].FootComment
		root.Content[at+1] = &v
	default:
		root.Content = append(root.Content, &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: key}, &v)
	}
	return nil
}
