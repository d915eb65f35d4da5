package memory

import (
	"context"
	"slices"
	"strconv"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// claim is a start that waits for its memory.
type claim struct {
	vm     api.VMRef
	answer chan error // capacity 1
}

// Claim waits until the memory of a VM, whose row is scheduled to a host, has been
// freed for it. It fails when that cannot be: then the caller takes the VM out of the
// ledger again.
func (m *Manager) Claim(ctx context.Context, host api.HostRef, vm api.VMRef) error {
	a := m.accounts[host]
	if a == nil {
		return api.ErrHostOffline(host.String())
	}
	c := &claim{vm: vm, answer: make(chan error, 1)}
	a.mu.Lock()
	a.claims = append(a.claims, c)
	delete(a.told, vm) // that was another domain
	a.mu.Unlock()
	defer a.withdraw(c)
	m.admit(a) // most have nothing to wait for
	m.Poke()
	select {
	case err := <-c.answer:
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-m.cfg.Clock.After(claimTimeout):
	}
	select {
	case err := <-c.answer: // it came with the last moment
		return err
	default:
		return m.refusal(a, vm)
	}
}

func (a *account) withdraw(c *claim) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.claims = slices.DeleteFunc(a.claims, func(other *claim) bool { return other == c })
}

// admit answers those who wait, where there is an answer. Of whoever comes while the
// rows are read these may not tell yet; they ask for themselves.
func (m *Manager) admit(a *account) {
	a.mu.Lock()
	known := slices.Clone(a.claims)
	a.mu.Unlock()
	lines := m.lines(a.Host.Ref())
	guests := a.guests(lines)
	a.mu.Lock()
	var waiting []string
	a.claims = slices.DeleteFunc(a.claims, func(c *claim) bool {
		if !slices.Contains(known, c) {
			return false
		}
		listed := slices.ContainsFunc(lines, func(l line) bool { return l.ref == c.vm })
		if !listed {
			c.answer <- m.unlisted(c.vm)
		}
		waiting = append(waiting, string(c.vm))
		return !listed
	})
	start, refuse := a.policy.admit(a.Host.GuestMemory(), guests, waiting)
	var refused []*claim
	a.claims = slices.DeleteFunc(a.claims, func(c *claim) bool {
		switch {
		case slices.Contains(start, string(c.vm)):
			c.answer <- nil
		case slices.Contains(refuse, string(c.vm)):
			refused = append(refused, c)
		default:
			return false
		}
		return true
	})
	a.mu.Unlock()
	for _, c := range refused {
		c.answer <- m.refusal(a, c.vm)
	}
}

// unlisted is the answer to who waits for the memory of a VM that is not about to run
// any more: its end was recorded meanwhile.
func (m *Manager) unlisted(ref api.VMRef) error {
	if _, err := db.Get(m.cfg.DB.Snapshot(), ref); err != nil {
		return err
	}
	return api.ErrVMHalted(string(ref))
}

// refusal says why a VM does not get its memory.
func (m *Manager) refusal(a *account, ref api.VMRef) error {
	vm, err := db.Get(m.cfg.DB.Snapshot(), ref)
	if err != nil {
		return err
	}
	guests := a.guests(m.lines(a.Host.Ref()))
	guests = slices.DeleteFunc(guests, func(g Guest) bool { return g.ID == string(ref) })
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, g := range guests {
		if a.policy.Stuck(g.ID) && g.Actual > g.Asked+tolerance {
			return api.ErrVMsFailedToCooperate()
		}
	}
	return NotEnough(Footprint(vm), a.Host.GuestMemory()-a.policy.Floor(guests))
}

// NotEnough is the error of what needs more memory than a host has.
func NotEnough(need, available int64) *api.Error {
	return api.ErrHostNotEnoughFreeMemory(strconv.FormatInt(need, 10), strconv.FormatInt(max(available, 0), 10))
}
