// Package xe is the command line of a pool: `xe <command> [name=value]…`.
//
// What there is to say stands in data, not in code:
//
//   - data/classes.json: the classes with generic commands (vm-list,
//     vm-param-set and so on), their columns and fields, where each field is
//     found in the records of the API and how it is written out;
//   - data/commands.json: the explicit commands and their parameters;
//   - data/calls.txt: what each explicit command calls, with which arguments,
//     and how the answer is shown. The few that need more say "code";
//   - data/errors.txt: the names of error parameters, generated with package api.
//
// A run is: settle the command line with ~/.xe and XE_EXTRA_ARGS (args.go,
// settings.go), log in (dial.go, trust.go), then a generic command (generic.go)
// or the steps of an explicit one (calls.go, step.go). A message the host has
// no behaviour for comes back as the host's own refusal, by name: nothing is
// guessed on this side.
//
// One Run is one session on one host; the package holds no other state, and a
// run uses one goroutine except for the console.
package xe
