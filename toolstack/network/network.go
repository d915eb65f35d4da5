// Package network is the behaviour of networks, virtual and physical interfaces
// as far as it is settings of their records: what traffic an interface may have,
// what a network is for.
//
// A value is checked in the transaction that writes it; a wrong one is answered
// with its error and changes nothing. An interface that is attached to a running
// VM is not changed by record alone: such a change is not built and says so.
//
// All functions may be called by many goroutines.
package network

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// settings edits records.
type settings struct{ db *db.DB }

// Register binds the behaviour.
func Register(r *api.Registry, d *db.DB) {
	s := settings{d}
	s.registerVIF(r)
	s.registerNetwork(r)
	s.registerPIF(r)
}
