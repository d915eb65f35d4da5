// Package storage is the behaviour of storage repositories and virtual disks as
// far as it is settings of their records: what they are called, what a disk may
// be used for, what a driver reports of their sizes.
//
// A value is checked in the transaction that writes it; a wrong one is answered
// with its error and changes nothing.
//
// All functions may be called by many goroutines.
package storage

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// settings edits records.
type settings struct{ db *db.DB }

// Register binds the behaviour.
func Register(r *api.Registry, d *db.DB) {
	s := settings{d}
	s.registerSR(r)
	s.registerVDI(r)
	s.registerPBD(r)
}

// set makes a handler of what puts a value into a record.
func set[V any, T any, P api.RecordPtr[T]](s settings, f func(tx *db.Tx, r *T, value V) error) func(*api.Call, api.Ref[T], V) error {
	return func(c *api.Call, ref api.Ref[T], value V) error {
		return db.Modify[T, P](c, s.db, ref, func(tx *db.Tx, r *T) error { return f(tx, r, value) })
	}
}
