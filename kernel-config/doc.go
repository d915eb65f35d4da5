// Package kernelconfig holds what the appliance asks of its kernel: the symbols
// that must be set (symbols.list) and the modules the image carries
// (modules.list), both by group, and checks a packaged kernel against them.
//
// The lists are data: whoever builds an own kernel starts from symbols.list,
// and a module reaches the image only by a line in modules.list or because one
// named there depends on it. Functions are pure and safe for concurrent use.
package kernelconfig
