package port

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// members is what of ports is in the table.
type members struct{ chains, from, to map[string]bool }

// maps looks at the table; a table that is not there holds nothing.
func (g *Guard) maps() (members, error) {
	m := members{chains: map[string]bool{}, from: map[string]bool{}, to: map[string]bool{}}
	c, err := nftables.New()
	if err != nil {
		return m, err
	}
	chains, err := c.ListChainsOfTableFamily(nftables.TableFamilyBridge)
	if err != nil {
		return m, fmt.Errorf("list chains: %w", err)
	}
	there := false
	for _, chain := range chains {
		if chain.Table.Name != tableName {
			continue
		}
		there = true
		if iface, ok := strings.CutPrefix(chain.Name, prefix); ok {
			m.chains[iface] = true
		}
	}
	if !there {
		return m, nil
	}
	return m, errors.Join(keys(c, g.from, m.from), keys(c, g.to, m.to))
}

// Contents names all that the table holds for ports: chains, elements of maps,
// counters, and sets of addresses. After the last port was deleted there is nothing.
func (g *Guard) Contents() ([]string, error) {
	m, err := g.maps()
	if err != nil {
		return nil, err
	}
	var all []string
	for kind, names := range map[string]map[string]bool{"chain": m.chains, "map from": m.from, "map to": m.to} {
		for name := range names {
			all = append(all, kind+" "+name)
		}
	}
	counters, err := g.Dropped()
	if err != nil {
		return nil, err
	}
	for name := range counters {
		all = append(all, "counter "+name)
	}
	sets, err := g.sets()
	slices.Sort(all)
	return append(all, sets...), err
}

// sets are those that rules made for their own use.
func (g *Guard) sets() (all []string, err error) {
	c, err := nftables.New()
	if err != nil {
		return nil, err
	}
	tables, err := c.ListTablesOfFamily(nftables.TableFamilyBridge)
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	if !slices.ContainsFunc(tables, func(t *nftables.Table) bool { return t.Name == tableName }) {
		return nil, nil // no port yet
	}
	sets, err := c.GetSets(g.table)
	if err != nil {
		return nil, fmt.Errorf("list sets: %w", err)
	}
	for _, s := range sets {
		if s.Name != fromMap && s.Name != toMap {
			all = append(all, "set "+s.Name)
		}
	}
	slices.Sort(all)
	return all, nil
}

func keys(c *nftables.Conn, s *nftables.Set, into map[string]bool) error {
	elements, err := c.GetSetElements(s)
	if err != nil {
		return fmt.Errorf("list map %s: %w", s.Name, err)
	}
	for _, e := range elements {
		into[string(bytes.TrimRight(e.Key, "\x00"))] = true
	}
	return nil
}

// exprs translates a rule.
func (g *Guard) exprs(c *nftables.Conn, iface string, r rule) ([]expr.Any, error) {
	var out []expr.Any
	for _, m := range r.matches {
		compare, err := g.compare(c, m)
		if err != nil {
			return nil, err
		}
		out = append(out, m.load(), compare)
	}
	if r.rate > 0 {
		out = append(out, &expr.Limit{
			Type: expr.LimitTypePktBytes, Rate: r.rate, Unit: expr.LimitTimeSecond, Over: true,
			Burst: uint32(min(r.burst, 1<<32-1)),
		})
	}
	kind := expr.VerdictDrop
	switch r.verdict {
	case accept:
		kind = expr.VerdictAccept
	case refuse:
		out = append(out, &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: iface})
	}
	return append(out, &expr.Verdict{Kind: kind}), nil
}

func (f field) load() expr.Any {
	switch f.base {
	case meta:
		return &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}
	case network:
		return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: f.offset, Len: f.length}
	case transport:
		return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: f.offset, Len: f.length}
	}
	return &expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: f.offset, Len: f.length}
}

// compare tests what load has loaded. Several values become a set that is the
// rule's own and goes with it.
func (g *Guard) compare(c *nftables.Conn, m match) (expr.Any, error) {
	if len(m.values) == 1 {
		ops := map[op]expr.CmpOp{is: expr.CmpOpEq, isNot: expr.CmpOpNeq, above: expr.CmpOpGt}
		return &expr.Cmp{Op: ops[m.op], Register: 1, Data: m.values[0]}, nil
	}
	kind := nftables.TypeInteger
	kind.Bytes = m.length
	set := &nftables.Set{Table: g.table, Anonymous: true, Constant: true, KeyType: kind}
	var elements []nftables.SetElement
	for _, v := range m.values {
		elements = append(elements, nftables.SetElement{Key: v})
	}
	if err := c.AddSet(set, elements); err != nil {
		return nil, fmt.Errorf("%s: %w", m, err)
	}
	return &expr.Lookup{SourceRegister: 1, SetName: set.Name, SetID: set.ID, Invert: m.op == isNot}, nil
}
