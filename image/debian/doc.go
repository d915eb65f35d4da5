// Package debian turns a list of package names into an unpacked Debian 13 tree
// whose every byte is known beforehand.
//
// The list (image/packages.list) says what is wanted and why, the lock
// (image/packages.lock) which version and sha256 of each package that means.
// A private apt root below the cache verifies the archive's signatures with
// Debian's own keyring; its mirror is the one the machine's apt already uses.
// apt only verifies and fetches: which packages belong together is decided
// here, so apt 2.6 and apt 3.0 give the same tree.
//
// Invariants: every package's sha256 is checked here again before it is
// unpacked; no maintainer script ever runs; a tree appears by one rename when
// it is complete and is never changed afterwards. A locked version that the
// mirror has dropped is replaced by the newest signed one, said aloud, and kept
// in the tree's record as drift.
//
// Several processes may call Open at once: one builds, the others wait on a
// file lock. A Tree is safe for use by many goroutines.
package debian
