package port

import (
	"errors"
	"fmt"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names in the kernel.
const (
	tableName = "cairn"
	fromMap   = "from" // interface to chain, for what a guest sends
	toMap     = "to"   // and for what it would receive
	prefix    = "port-"
)

// chainOf keeps the names of ports and of the table's own chains apart.
func chainOf(iface string) string { return prefix + iface }

// Guard is the table of the network namespace it is used in.
type Guard struct {
	table    *nftables.Table
	from, to *nftables.Set
	built    bool
}

// NewGuard does nothing yet: the table is made with the first port.
func NewGuard() *Guard {
	t := &nftables.Table{Name: tableName, Family: nftables.TableFamilyBridge}
	return &Guard{table: t, from: verdictMap(t, fromMap), to: verdictMap(t, toMap)}
}

func verdictMap(t *nftables.Table, name string) *nftables.Set {
	return &nftables.Set{Table: t, Name: name, IsMap: true, KeyType: nftables.TypeIFName, DataType: nftables.TypeVerdict}
}

// Put makes a port's rules what Rules says, in place of what they were. The
// counter goes on.
func (g *Guard) Put(p Port) error {
	have, err := g.maps()
	if err != nil {
		return fmt.Errorf("port %s: %w", p.Interface, err)
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("port %s: %w", p.Interface, err)
	}
	if !g.built {
		g.build(c)
	}
	if err := g.put(c, p, have); err != nil {
		return fmt.Errorf("port %s: %w", p.Interface, err)
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("port %s: %w", p.Interface, err)
	}
	g.built = true
	return nil
}

// build adds the table's own part. Chains and maps may be there from before.
func (g *Guard) build(c *nftables.Conn) {
	c.AddTable(g.table)
	_ = c.AddSet(g.from, nil) // without elements it only queues a message
	_ = c.AddSet(g.to, nil)
	for _, hook := range []struct {
		name    string
		at      *nftables.ChainHook
		matches []expr.Any
		key     expr.MetaKey
		set     *nftables.Set
	}{
		{"prerouting", nftables.ChainHookPrerouting, nil, expr.MetaKeyIIFNAME, g.from},
		// Frames to the addresses a bridge must not forward (IEEE 802.1D, 7.12.6)
		// skip the hook above and go to the host. Those of LLDP pass no hook at all,
		// and only a program that listens for them on this very interface hears them.
		{"input", nftables.ChainHookInput, toBridge(), expr.MetaKeyIIFNAME, g.from},
		{"postrouting", nftables.ChainHookPostrouting, nil, expr.MetaKeyOIFNAME, g.to},
	} {
		chain := c.AddChain(&nftables.Chain{
			Name: hook.name, Table: g.table, Type: nftables.ChainTypeFilter, Hooknum: hook.at,
			Priority: nftables.ChainPriorityRef(-200), // NF_BR_PRI_FILTER_BRIDGED
		})
		c.FlushChain(chain)
		c.AddRule(&nftables.Rule{Table: g.table, Chain: chain, Exprs: append(hook.matches,
			&expr.Meta{Key: hook.key, Register: 1},
			&expr.Lookup{SourceRegister: 1, DestRegister: unix.NFT_REG_VERDICT, IsDestRegSet: true, SetName: hook.set.Name, SetID: hook.set.ID},
		)})
	}
}

// toBridge matches the 16 reserved addresses.
func toBridge() []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: etherTo.offset, Len: 6},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 6, Mask: []byte{255, 255, 255, 255, 255, 0xf0}, Xor: make([]byte, 6)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{0x01, 0x80, 0xc2, 0, 0, 0}},
	}
}

func (g *Guard) put(c *nftables.Conn, p Port, have members) error {
	chain := c.AddChain(&nftables.Chain{Name: chainOf(p.Interface), Table: g.table})
	c.AddObj(g.counter(p.Interface))
	c.FlushChain(chain)
	for _, r := range Rules(p) {
		exprs, err := g.exprs(c, p.Interface, r)
		if err != nil {
			return err
		}
		c.AddRule(&nftables.Rule{Table: g.table, Chain: chain, Exprs: exprs})
	}
	element := g.element(p.Interface)
	var errs []error
	if !have.from[p.Interface] {
		errs = append(errs, c.SetAddElements(g.from, element))
	}
	switch deaf := p.Mode == Disabled; {
	case deaf && !have.to[p.Interface]:
		errs = append(errs, c.SetAddElements(g.to, element))
	case !deaf && have.to[p.Interface]:
		errs = append(errs, c.SetDeleteElements(g.to, element))
	}
	return errors.Join(errs...)
}

func (g *Guard) element(iface string) []nftables.SetElement {
	return []nftables.SetElement{{Key: ifname(iface), VerdictData: &expr.Verdict{Kind: expr.VerdictJump, Chain: chainOf(iface)}}}
}

// ifname is a name as the kernel compares it: IFNAMSIZ bytes.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return b
}

func (g *Guard) counter(iface string) *nftables.NamedObj {
	return &nftables.NamedObj{Table: g.table, Name: iface, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}}
}

// Delete removes a port and all that was made for it; one that is not there is no
// error.
func (g *Guard) Delete(iface string) error {
	have, err := g.maps()
	if err != nil {
		return fmt.Errorf("port %s: %w", iface, err)
	}
	if !have.chains[iface] {
		return nil
	}
	c, err := nftables.New()
	if err != nil {
		return fmt.Errorf("port %s: %w", iface, err)
	}
	var errs []error
	if have.from[iface] {
		errs = append(errs, c.SetDeleteElements(g.from, g.element(iface)))
	}
	if have.to[iface] {
		errs = append(errs, c.SetDeleteElements(g.to, g.element(iface)))
	}
	chain := &nftables.Chain{Name: chainOf(iface), Table: g.table}
	c.FlushChain(chain)
	c.DelChain(chain)
	c.DeleteObject(g.counter(iface))
	if err := errors.Join(append(errs, c.Flush())...); err != nil {
		return fmt.Errorf("port %s: %w", iface, err)
	}
	return nil
}

// Restore makes the table hold these ports and no others. What cannot be put is
// reported; the others are.
func (g *Guard) Restore(ports []Port) error {
	have, err := g.maps()
	if err != nil {
		return err
	}
	var errs []error
	for _, p := range ports {
		errs = append(errs, g.Put(p))
	}
	for name := range have.chains {
		if !slices.ContainsFunc(ports, func(p Port) bool { return p.Interface == name }) {
			errs = append(errs, g.Delete(name))
		}
	}
	return errors.Join(errs...)
}

// Dropped counts, by interface, the frames that were refused.
func (g *Guard) Dropped() (map[string]uint64, error) {
	c, err := nftables.New()
	if err != nil {
		return nil, fmt.Errorf("ports: %w", err)
	}
	out := map[string]uint64{}
	objects, err := c.GetNamedObjects(g.table)
	if errors.Is(err, unix.ENOENT) {
		return out, nil // no port yet
	}
	if err != nil {
		return nil, fmt.Errorf("ports: %w", err)
	}
	for _, o := range objects {
		if n, ok := o.(*nftables.NamedObj); ok {
			if counter, ok := n.Obj.(*expr.Counter); ok {
				out[n.Name] = counter.Packets
			}
		}
	}
	return out, nil
}
