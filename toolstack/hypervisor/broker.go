package hypervisor

import "sync"

// queueLength is what a subscriber may lag behind before it has to resync. There
// is one subscriber for each clean shutdown that is being waited for.
const queueLength = 256

// broker fans events out. publish never blocks: a subscriber whose queue is full
// loses what is in it and finds a Resync instead, which is all a level-triggered
// consumer needs.
type broker struct {
	mu     sync.Mutex
	subs   map[chan Event]bool
	closed bool
}

func (b *broker) subscribe() (<-chan Event, func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	ch := make(chan Event, queueLength)
	ch <- Event{Kind: Resync}
	if b.closed {
		close(ch)
		return ch, func() {}
	}
	if b.subs == nil {
		b.subs = map[chan Event]bool{}
	}
	b.subs[ch] = true
	return ch, func() { b.cancel(ch) }
}

func (b *broker) cancel(ch chan Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.subs[ch] {
		delete(b.subs, ch)
		close(ch)
	}
}

func (b *broker) publish(e Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for ch := range b.subs {
		select {
		case ch <- e:
		default:
			drain(ch)
			ch <- Event{Kind: Resync}
		}
	}
}

func drain(ch chan Event) {
	for {
		select {
		case <-ch:
		default:
			return
		}
	}
}

func (b *broker) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	for ch := range b.subs {
		delete(b.subs, ch)
		close(ch)
	}
}
