// Package slots names the partitions of a Cairn disk and ties the two image
// slots, A and B, to their content: the partition GUIDs of a slot are cut from
// the verity root hash of the image in it. A boot therefore finds its own slot
// by the hash on its command line and never by a device name or an order.
//
// Everything here is pure and safe for concurrent use.
package slots

import (
	"encoding/hex"
	"fmt"
	"strings"
)

// HashSize is the size of a root hash in bytes: SHA-256, the only digest used.
const HashSize = 32

// Names of the GPT partitions that are not part of a slot.
const (
	ESP   = "ESP"   // FAT32: boot loader and unified kernel images
	Meta  = "META"  // slot states, two checksummed copies
	State = "STATE" // ext4: everything durable of the host
	Logs  = "LOGS"  // ext4: logs and crash dumps
)

// A Slot is one of the two places an image can be installed in.
type Slot string

// The slots.
const (
	A Slot = "A"
	B Slot = "B"
)

// All lists the slots in the order in which they are looked at.
func All() []Slot { return []Slot{A, B} }

// Other returns the slot an update of s is written to.
func (s Slot) Other() Slot {
	if s == A {
		return B
	}
	return A
}

// RootName is the GPT name of the slot's root file system partition.
func (s Slot) RootName() string { return "root_" + string(s) }

// HashName is the GPT name of the slot's verity hash tree partition.
func (s Slot) HashName() string { return "hash_" + string(s) }

// OfName tells which slot the partition with this GPT name belongs to.
func OfName(name string) (Slot, bool) {
	for _, s := range All() {
		if name == s.RootName() || name == s.HashName() {
			return s, true
		}
	}
	return "", false
}

// ParseHash checks the text form of a root hash: 64 hexadecimal digits.
func ParseHash(text string) ([HashSize]byte, error) {
	var hash [HashSize]byte
	if len(text) != hex.EncodedLen(HashSize) {
		return hash, fmt.Errorf("root hash %q: %d characters, want %d", text, len(text), hex.EncodedLen(HashSize))
	}
	if _, err := hex.Decode(hash[:], []byte(text)); err != nil {
		return hash, fmt.Errorf("root hash %q: %w", text, err)
	}
	return hash, nil
}

// PartUUIDs returns the partition GUIDs, in lower-case text form, of the root
// and the hash partition that hold the image with this root hash: its first
// and its last 16 bytes, as the Discoverable Partitions Specification has it.
func PartUUIDs(rootHash string) (root, hash string, err error) {
	sum, err := ParseHash(rootHash)
	if err != nil {
		return "", "", err
	}
	return guid(sum[:16]), guid(sum[HashSize-16:]), nil
}

// A Partition is what the slot rules need to know of a GPT entry.
type Partition struct {
	Name string // GPT name, such as "root_A"
	UUID string // unique partition GUID, text form
}

// Find tells which slot of a disk holds the image with this root hash. Both
// partitions must be there under the GUIDs the hash gives them and under the
// names of the same slot; anything else is not a slot that can be booted.
func Find(disk []Partition, rootHash string) (Slot, bool) {
	root, hash, err := PartUUIDs(rootHash)
	if err != nil {
		return "", false
	}
	for _, s := range All() {
		if has(disk, s.RootName(), root) && has(disk, s.HashName(), hash) {
			return s, true
		}
	}
	return "", false
}

func has(disk []Partition, name, uuid string) bool {
	for _, p := range disk {
		if p.Name == name && strings.EqualFold(p.UUID, uuid) {
			return true
		}
	}
	return false
}

// guid writes 16 bytes in the order they have, as 8-4-4-4-12 digits. The
// mixed-endian form is a matter of how a GPT stores it, not of this text.
func guid(b []byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[0:4], b[4:6], b[6:8], b[8:10], b[10:16])
}
