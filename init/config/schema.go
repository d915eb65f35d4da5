package config

import (
	_ "embed"
	"math"
	"net/netip"

	"go.yaml.in/yaml/v3"
)

// Schema is the published JSON schema of the document, for editors and
// generators. It says the same as Parse except for rules between values.
//
//go:embed schema.json
var Schema []byte

// The lists are bounded by their readers: chrony is given at most 16 servers,
// and the C library's resolver uses three.
const (
	maxNTP = 16
	maxDNS = 3
)

func (p *parser) document(n *yaml.Node, doc *Document) {
	hasVersion := false
	p.mapping("", n,
		field{"version", func(path string, n *yaml.Node) { hasVersion = true; p.version(path, n) }},
		field{"revision", func(path string, n *yaml.Node) { p.revision(path, n, &doc.Revision) }},
		field{"hostname", func(path string, n *yaml.Node) {
			p.text(path, n, func(s string) error { doc.Hostname = s; return checkHostname(s) })
		}},
		field{"management", func(path string, n *yaml.Node) { p.management(path, n, &doc.Management) }},
		field{"ntp", func(path string, n *yaml.Node) {
			p.list(path, n, maxNTP, func(s string) error { doc.NTP = append(doc.NTP, s); return checkServer(s) })
		}},
		field{"root", func(path string, n *yaml.Node) { p.root(path, n, &doc.Root) }},
		field{"emulation", func(path string, n *yaml.Node) {
			p.text(path, n, func(s string) error {
				doc.Emulation = Emulation(s)
				return oneOf(s, string(EmulationNone), string(EmulationAllowed))
			})
		}},
		field{"storage", func(path string, n *yaml.Node) { p.storage(path, n, &doc.Storage) }},
	)
	if !hasVersion && n.Kind == yaml.MappingNode {
		p.fail(n.Line, "version is missing; this host reads version %d", Version)
	}
}

func (p *parser) version(path string, n *yaml.Node) {
	var v int
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || n.Decode(&v) != nil {
		p.fail(n.Line, "%s must be the number %d, not %s", path, Version, kind(n))
		return
	}
	if v != Version {
		p.fail(n.Line, "%s is %d; this host reads version %d", path, v, Version)
	}
}

func (p *parser) revision(path string, n *yaml.Node, to *int) {
	var v int64
	if n.Kind != yaml.ScalarNode || n.ShortTag() != "!!int" || n.Decode(&v) != nil || v < 0 || v > math.MaxInt32 {
		p.fail(n.Line, "%s must be a number from 0 to %d", path, math.MaxInt32)
		return
	}
	*to = int(v)
}

func (p *parser) root(path string, n *yaml.Node, r *Root) {
	p.mapping(path, n, field{"password_hash", func(path string, n *yaml.Node) {
		p.text(path, n, func(s string) error {
			r.PasswordHash = s
			_, err := parseHash(s)
			return err
		})
	}})
}

func (p *parser) storage(path string, n *yaml.Node, s *Storage) {
	p.mapping(path, n, field{"local", func(path string, n *yaml.Node) {
		before := len(p.problems)
		s.Local.Type = LocalExt
		p.mapping(path, n,
			field{"type", func(path string, n *yaml.Node) {
				p.text(path, n, func(v string) error {
					s.Local.Type = LocalType(v)
					return oneOf(v, string(LocalExt), string(LocalLVM), string(LocalFile))
				})
			}},
			field{"device", func(path string, n *yaml.Node) {
				p.text(path, n, func(v string) error { s.Local.Device = v; return checkDevice(v) })
			}},
			field{"location", func(path string, n *yaml.Node) {
				p.text(path, n, func(v string) error { s.Local.Location = v; return checkLocation(v) })
			}},
		)
		if len(p.problems) == before {
			p.medium(n.Line, s.Local)
		}
	}})
}

// medium holds the rules between the values of a sound local repository.
func (p *parser) medium(line int, l Local) {
	has, hasNot := "device", "location"
	if l.Type == LocalFile {
		has, hasNot = hasNot, has
	}
	if p.lines["storage.local."+has] == 0 {
		p.fail(line, "storage.local.%s is missing, which type %s needs", has, l.Type)
	}
	if at := p.lines["storage.local."+hasNot]; at != 0 {
		p.fail(at, "storage.local.%s is not for type %s", hasNot, l.Type)
	}
}

func (p *parser) management(path string, n *yaml.Node, m *Management) {
	before := len(p.problems)
	p.mapping(path, n,
		field{"interface", func(path string, n *yaml.Node) {
			p.text(path, n, func(s string) error { m.Interface = s; return checkInterface(s) })
		}},
		field{"mode", func(path string, n *yaml.Node) {
			p.text(path, n, func(s string) error {
				m.Mode = Mode(s)
				return oneOf(s, string(ModeDHCP), string(ModeStatic))
			})
		}},
		field{"address", func(path string, n *yaml.Node) {
			p.text(path, n, func(s string) (err error) { m.Address, err = parseAddress(s); return err })
		}},
		field{"gateway", func(path string, n *yaml.Node) {
			p.text(path, n, func(s string) (err error) { m.Gateway, err = parseIPv4(s); return err })
		}},
		field{"dns", func(path string, n *yaml.Node) {
			p.list(path, n, maxDNS, func(s string) error {
				a, err := parseIP(s)
				m.DNS = append(m.DNS, a)
				return err
			})
		}},
	)
	if len(p.problems) == before {
		p.addressing(*m)
	}
}

// addressing holds the rules between the values of a sound management block.
func (p *parser) addressing(m Management) {
	at := func(key string) int { return p.lines["management."+key] }
	if m.Mode == ModeDHCP {
		for _, key := range []string{"address", "gateway"} {
			if at(key) != 0 {
				p.fail(at(key), "management.%s needs management.mode: static", key)
			}
		}
		return
	}
	if !m.Address.IsValid() {
		p.fail(at("mode"), "management.mode is static, but management.address is missing")
		return
	}
	if m.Gateway.IsValid() && !m.Address.Contains(m.Gateway) {
		p.fail(at("gateway"), "management.gateway %s is not in the network %s", m.Gateway, m.Address.Masked())
	}
	if m.Gateway == m.Address.Addr() {
		p.fail(at("gateway"), "management.gateway %s is the host's own address", m.Gateway)
	}
}

// isEdge reports whether a is the network or broadcast address of its prefix.
func isEdge(p netip.Prefix) bool {
	if p.Bits() >= 31 {
		return false
	}
	if p.Masked().Addr() == p.Addr() {
		return true
	}
	return !p.Contains(p.Addr().Next())
}
