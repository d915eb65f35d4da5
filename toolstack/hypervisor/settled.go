package hypervisor

import "context"

// Settled implements Devices. libvirt does what changes a domain one after another,
// and lets nothing in between that talks to its QEMU: statistics of the memory do,
// and change nothing.
func (l *Libvirt) Settled(ctx context.Context, uuid string) error {
	_, err := l.MemoryStats(ctx, uuid)
	return err
}

// AnswerLate makes the next call of a method be answered with ErrUnknownOutcome and
// take effect only when Settled is asked, as one whose caller gave up waiting.
func (f *Fake) AnswerLate(method string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late[method] = true
}

// Settled implements Devices.
func (f *Fake) Settled(ctx context.Context, uuid string) error {
	f.mu.Lock()
	for _, act := range f.underWay {
		act()
	}
	f.underWay = nil
	f.mu.Unlock()
	return f.on(ctx, "Settled", uuid, "", func(*fakeDomain) {})
}
