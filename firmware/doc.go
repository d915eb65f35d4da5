// Package firmware decides which firmware and microcode files the image
// carries: an allow-list by group (files.list), resolved against the Debian
// tree. A driver that is in the image and has its firmware neither here nor in
// its device's flash does not work, so the two lists are kept together.
//
// Functions are pure and safe for concurrent use.
package firmware
