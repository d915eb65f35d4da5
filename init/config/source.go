package config

import "errors"

// Source names where a document came from.
type Source string

// The sources, in the order they are asked. The first with a sound document
// decides, unless one from outside has a higher revision; the wrong ones before
// it are reported.
const (
	SourceState   Source = "state"
	SourceGood    Source = "state-last-known-good"
	SourceMedia   Source = "media"
	SourceSMBIOS  Source = "smbios"
	SourceDefault Source = "default"
)

// Candidate is a text a source had to offer.
type Candidate struct {
	Source Source
	Text   []byte
}

// Refusal is a candidate's Problem.
type Refusal struct {
	Source Source
	Problem
}

// Choice is the outcome of looking at all candidates.
type Choice struct {
	Document Document
	Text     []byte
	Source   Source
	// Store is true when the document must be kept on STATE, because it came
	// from elsewhere.
	Store    bool
	Refusals []Refusal
}

// Choose picks the document in force from the candidates, which are given in
// the order of the sources. It always returns one: the defaults keep a host
// reachable whatever it was given.
func Choose(candidates []Candidate) Choice {
	c := Choice{Document: Default(), Source: SourceDefault}
	for _, cand := range candidates {
		doc, err := Parse(cand.Text)
		switch {
		case err == nil && (c.Source == SourceDefault || doc.Revision > c.Document.Revision):
			c.Document, c.Text, c.Source = doc, cand.Text, cand.Source
			c.Store = cand.Source == SourceMedia || cand.Source == SourceSMBIOS
		case err != nil && c.Source == SourceDefault:
			c.refuse(cand.Source, err)
		}
	}
	return c
}

// Newer reports whether a text is a sound document of a higher revision.
func Newer(text []byte, than Document) bool {
	doc, err := Parse(text)
	return err == nil && doc.Revision > than.Revision
}

func (c *Choice) refuse(s Source, err error) {
	var ps Problems
	if !errors.As(err, &ps) {
		ps = Problems{{Line: 1, Message: err.Error()}}
	}
	for _, p := range ps {
		c.Refusals = append(c.Refusals, Refusal{Source: s, Problem: p})
	}
}
