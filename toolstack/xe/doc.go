// Package xe is the command line of a pool: `xe <command> [name=value]…`.
//
// Commands, their parameters and the columns of the generic record commands
// come from commands.json; what a record field is called on the wire and where
// it is found stands there too ("metrics.memory_actual" is the field of the
// record the metrics reference leads to). A command of the list that has no
// code yet says so by name and exits with status 1: nothing is guessed.
//
// One Run is one session on one host; the package holds no other state.
package xe
