// Package clienttest lets clients that others wrote drive the API: a Go module and
// an npm package, each as its registry has it. The tests need the lab tag, node,
// and the packages' download; `make test-clients` runs them.
package clienttest
