package hostd

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"cairn/init/hostd/client"
	"cairn/init/network/port"
)

// Guard enforces what ports may do; port.Guard is the kernel's.
type Guard interface {
	Put(port.Port) error
	Delete(iface string) error
	Restore([]port.Port) error
	Dropped() (map[string]uint64, error)
	// Cut takes away a port's interface.
	Cut(iface string) error
}

// portModules are what the rules of ports need. No hardware asks for them, so
// they are loaded with the first port. A kernel that has the last as a module
// takes no question about an interface without it.
var portModules = []string{"bridge", "nf_tables", "nft_limit", "nft_meta_bridge"}

// ports are the ports that were put, in a file that lasts until the next boot.
// A port is in the file before it is in the kernel and out of the kernel before it
// is out of the file, so a restart never forgets one that counts.
type ports struct {
	path  string
	guard Guard
	load  func(module string) error

	mu    sync.Mutex
	all   map[string]client.Port
	ready bool // modules are loaded
}

// restore makes the kernel's rules those of the file.
func (p *ports) restore() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all = map[string]client.Port{}
	text, err := os.ReadFile(p.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(text, &p.all)
	}
	if err != nil {
		// Without the list nothing is known to be superfluous: what is in the
		// kernel stays, and whoever put it will put it again.
		return fmt.Errorf("ports: %w", err)
	}
	var kept []port.Port
	var errs []error
	for _, row := range p.all {
		want, err := portOf(row)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		kept = append(kept, want)
	}
	return errors.Join(append(errs, p.guard.Restore(kept))...)
}

func (p *ports) put(row client.Port) error {
	want, err := portOf(row)
	if err != nil {
		return err
	}
	row.Dropped = 0
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.ready {
		for _, module := range portModules {
			if err := p.load(module); err != nil {
				return fmt.Errorf("port %s: %w", row.Interface, err)
			}
		}
		p.ready = true
	}
	old, had := p.all[row.Interface]
	p.all[row.Interface] = row
	if err := p.save(); err != nil {
		return err
	}
	err = p.guard.Put(want)
	if err == nil {
		return nil
	}
	if delete(p.all, row.Interface); had {
		p.all[row.Interface] = old
	}
	return errors.Join(err, p.save())
}

func (p *ports) remove(iface string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.all[iface]; !ok {
		return nil
	}
	if err := p.guard.Cut(iface); err != nil { // first: without its rules it would be free
		return err
	}
	if err := p.guard.Delete(iface); err != nil {
		return err
	}
	delete(p.all, iface)
	return p.save()
}

// list returns the ports by name, with what they dropped.
func (p *ports) list() ([]client.Port, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := slices.Collect(maps.Values(p.all))
	if len(out) == 0 {
		return []client.Port{}, nil
	}
	dropped, err := p.guard.Dropped()
	if err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Dropped = dropped[out[i].Interface]
	}
	slices.SortFunc(out, func(a, b client.Port) int { return strings.Compare(a.Interface, b.Interface) })
	return out, nil
}

func (p *ports) save() error {
	text, err := json.Marshal(p.all)
	if err == nil {
		err = os.WriteFile(p.path+".new", text, 0o600)
	}
	if err == nil {
		err = os.Rename(p.path+".new", p.path)
	}
	if err != nil {
		return fmt.Errorf("ports: %w", err)
	}
	return nil
}
