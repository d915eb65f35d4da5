// Package config is the host configuration document: its schema, its strict
// parser, its defaults, where a document may come from, and how it is kept.
//
// The document owns what a host needs before it can be managed: its name, the
// management interface, time servers, the root password and whether emulation
// is allowed. It may also name the disk a new host begins with, which is asked for
// once. Everything else belongs to the pool database.
//
// Invariants: Parse never returns a document that Validate would refuse; an
// error about a document names the line; a wrong document changes nothing.
// schema.json is the published form of the same rules, and a test keeps both
// in agreement.
//
// Documents are values. Store is the only type with state on disk; one
// goroutine (hostd's) calls it.
package config

import "net/netip"

// Version is the only document version this host understands.
const Version = 1

// Document is a configuration document, version 1, with defaults filled in.
// Its JSON form is what hostd's socket carries.
type Document struct {
	Version int `json:"version"`
	// Revision orders documents: one from outside replaces the host's own when
	// its revision is higher. From 0 to 2147483647.
	Revision   int        `json:"revision,omitempty"`
	Hostname   string     `json:"hostname"`
	Management Management `json:"management"`
	NTP        []string   `json:"ntp,omitempty"`
	Root       Root       `json:"root,omitzero"`
	Emulation  Emulation  `json:"emulation"`
	Storage    Storage    `json:"storage,omitzero"`
}

// Management is the network interface the host is managed through.
type Management struct {
	// Interface is a kernel name or a MAC address; empty means the first
	// NIC with a link, by PCI path.
	Interface string       `json:"interface,omitempty"`
	Mode      Mode         `json:"mode"`
	Address   netip.Prefix `json:"address,omitzero"`
	Gateway   netip.Addr   `json:"gateway,omitzero"`
	// DNS, when given in mode dhcp, replaces the servers of the lease.
	DNS []netip.Addr `json:"dns,omitempty"`
}

// Mode is how the management interface gets its address.
type Mode string

// The modes of a management interface.
const (
	ModeDHCP   Mode = "dhcp"
	ModeStatic Mode = "static"
)

// Root is the account a pool is managed with.
type Root struct {
	// PasswordHash is an argon2id hash in PHC form; empty disables login.
	PasswordHash string `json:"password_hash,omitempty"`
}

// Emulation says whether guests may run without hardware virtualization.
type Emulation string

// The emulation policies.
const (
	EmulationNone    Emulation = "none"
	EmulationAllowed Emulation = "allowed"
)

// Storage is what a host has to begin with.
type Storage struct {
	Local Local `json:"local,omitzero"`
}

// Local is the medium of the repository a host makes when it starts for the first
// time. The zero value is none.
type Local struct {
	Type LocalType `json:"type,omitempty"`
	// Device is the path of a whole disk, for LocalExt and LocalLVM.
	Device string `json:"device,omitempty"`
	// Location is a directory of STATE, for LocalFile.
	Location string `json:"location,omitempty"`
}

// LocalType is how a local repository is kept.
type LocalType string

// The types of local repositories.
const (
	LocalExt  LocalType = "ext"
	LocalLVM  LocalType = "lvm"
	LocalFile LocalType = "file"
)

// Default is the document of a host nobody has configured: DHCP on the first
// NIC with a link, no login.
func Default() Document {
	return Document{
		Version:    Version,
		Hostname:   "cairn",
		Management: Management{Mode: ModeDHCP},
		Emulation:  EmulationNone,
	}
}
