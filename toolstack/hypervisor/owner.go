package hypervisor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"runtime"
	"sync"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
)

// maxCalls is how many calls may be in flight. libvirtd reads no more of one client
// before it has answered (max_client_requests in its configuration, which says the
// same), so more would only wait where no limit can see them.
const maxCalls = 10

// maxLong of them may be taken by what moves a guest's memory, which can take
// minutes: the others stay free for everything else.
const maxLong = 2

// maxStarts is how many domains start at once: as many as the host has CPUs for, so
// that each is done in its time. All of a crowd at once would all be late together.
// Two places are left to everything else.
func maxStarts() int { return min(max(2, runtime.NumCPU()), maxCalls-maxLong-2) }

// owner keeps one connection to libvirtd alive. One goroutine makes, watches and
// replaces it; calls borrow it. A connection is used for one life only: the
// library is not safe to reconnect, and a fresh object costs nothing.
//
// Three habits of the library decide the shape. A call has no time limit, and
// only the end of the whole connection wakes one. A call that needs nothing but
// libvirtd therefore ends the connection when it takes too long, for then
// libvirtd hangs. A job waits for some QEMU as well, which says nothing about the
// others: its caller is told that the outcome is unknown, the job itself is left
// behind and ends when it ends. Its event stream must be read until it closes and never be
// cancelled while the connection lives, else the reader goroutine stops for
// good. And its own report of a disconnect can be lost, so the owner watches the
// socket itself.
type owner struct {
	cfg    Config
	cancel context.CancelFunc
	done   chan struct{}
	slots  chan struct{}
	longs  chan struct{} // of slots, those that long calls may take
	starts chan struct{} // likewise
	events broker

	mu      sync.Mutex
	link    *link         // nil while not connected
	changed chan struct{} // closed and replaced when link changes
}

// link is one connection's life.
type link struct {
	rpc       *golibvirt.Libvirt
	conn      *watchedConn
	lifecycle <-chan golibvirt.DomainEventLifecycleMsg
	devices   [2]<-chan any // I/O errors, removed devices
}

func newOwner(cfg Config) *owner {
	ctx, cancel := context.WithCancel(context.Background())
	o := &owner{
		cfg: cfg, cancel: cancel, done: make(chan struct{}),
		slots: make(chan struct{}, maxCalls), longs: make(chan struct{}, maxLong), starts: make(chan struct{}, maxStarts()), changed: make(chan struct{}),
	}
	go o.run(ctx)
	return o
}

func (o *owner) close() error {
	o.cancel()
	<-o.done
	o.events.close()
	return nil
}

// run is the owner goroutine.
func (o *owner) run(ctx context.Context) {
	defer close(o.done)
	wait, told := o.cfg.Limits.BackoffMin, false
	for ctx.Err() == nil {
		k, err := o.dial(ctx)
		if err != nil {
			if !told {
				o.cfg.Log.Info("waiting", "for", "libvirt", "socket", o.cfg.Socket, "err", err)
			}
			told = true
			sleep(ctx, wait)
			wait = min(2*wait, o.cfg.Limits.BackoffMax)
			continue
		}
		wait, told = o.cfg.Limits.BackoffMin, false
		o.cfg.Log.Info("libvirt-connected", "socket", o.cfg.Socket)
		o.live(ctx, k)
	}
}

// live publishes a connection and its events until it breaks.
func (o *owner) live(ctx context.Context, k *link) {
	stop := context.AfterFunc(ctx, k.kill)
	defer stop()
	o.set(k)
	o.events.publish(Event{Kind: Resync})
	o.follow(k)
	o.set(nil)
	if ctx.Err() == nil {
		o.cfg.Log.Warn("libvirt-lost", "socket", o.cfg.Socket)
	}
}

// follow relays events until the connection is dead, and then lets the library's
// own goroutine run dry.
func (o *owner) follow(k *link) {
	defer func() { go k.runDry() }()
	for {
		select {
		case m, ok := <-k.lifecycle:
			if !ok {
				k.kill()
				return
			}
			if e, ok := eventFrom(m); ok {
				o.events.publish(e)
			}
		case m, ok := <-k.devices[0]:
			o.device(k, m, ok)
		case m, ok := <-k.devices[1]:
			o.device(k, m, ok)
		case <-k.conn.dead:
			return
		}
	}
}

func (o *owner) device(k *link, m any, open bool) {
	if !open {
		k.kill()
	}
	if e, ok := deviceEventFrom(m); ok {
		o.events.publish(e)
	}
}

// runDry reads what the library still wants to tell, until it closes the channels.
func (k *link) runDry() {
	for _, c := range k.devices {
		go func() {
			for range c {
			}
		}()
	}
	for range k.lifecycle {
	}
}

// dial makes a connection, logs in and subscribes to events, all within one
// limit.
func (o *owner) dial(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, o.cfg.Limits.Connect)
	defer cancel()
	raw, err := (&net.Dialer{}).DialContext(ctx, "unix", o.cfg.Socket)
	if err != nil {
		return nil, fmt.Errorf("libvirt: %w", err)
	}
	conn := &watchedConn{Conn: raw, dead: make(chan struct{})}
	stop := context.AfterFunc(ctx, conn.kill) // wakes the library where it waits
	defer stop()
	k := &link{conn: conn, rpc: golibvirt.NewWithDialer(dialed{conn})}
	if err := k.rpc.Connect(); err != nil {
		conn.kill()
		return nil, fmt.Errorf("libvirt: log in: %w", err)
	}
	if err := k.listen(); err != nil {
		conn.kill()
		return nil, fmt.Errorf("libvirt: subscribe: %w", err)
	}
	return k, nil
}

// listen subscribes to events. Subscriptions are never cancelled: see owner.
func (k *link) listen() (err error) {
	if k.lifecycle, err = k.rpc.LifecycleEvents(context.Background()); err != nil {
		return err
	}
	for i, id := range []golibvirt.DomainEventID{golibvirt.DomainEventIDIoErrorReason, golibvirt.DomainEventIDDeviceRemoved} {
		if k.devices[i], err = k.rpc.SubscribeEvents(context.Background(), id, nil); err != nil {
			return err
		}
	}
	return nil
}

func (k *link) kill() { k.conn.kill() }

func (o *owner) set(k *link) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.link = k
	close(o.changed)
	o.changed = make(chan struct{})
}

// current returns the connection, waiting for one until the context ends.
func (o *owner) current(ctx context.Context) (*link, error) {
	for {
		o.mu.Lock()
		k, changed := o.link, o.changed
		o.mu.Unlock()
		if k != nil {
			return k, nil
		}
		select {
		case <-changed:
		case <-o.done:
			return nil, fmt.Errorf("%w: closed", ErrUnavailable)
		case <-ctx.Done():
			return nil, fmt.Errorf("%w: %w", ErrUnavailable, context.Cause(ctx))
		}
	}
}

// limit bounds a call.
type limit struct {
	after time.Duration
	// hangs says what it means when there is no answer by then: that libvirtd
	// hangs, or only what was asked for.
	hangs bool
}

// call runs f on the connection. It waits for one as long as a query may take, so
// a restart of libvirtd is a pause and not an error.
func (o *owner) call(ctx context.Context, l limit, what string, f func(*golibvirt.Libvirt) error) error {
	wait, cancel := context.WithTimeout(ctx, o.cfg.Limits.Call)
	defer cancel()
	k, err := o.current(wait)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return o.callOn(ctx, k, l, what, f)
}

// in is call that first waits for one of few places. That wait is not part of the
// call's own limit.
func (o *owner) in(ctx context.Context, places chan struct{}, l limit, what string, f func(*golibvirt.Libvirt) error) error {
	select {
	case places <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, context.Cause(ctx))
	}
	defer func() { <-places }()
	return o.call(ctx, l, what, f)
}

// long is call for what may take minutes.
func (o *owner) long(ctx context.Context, l limit, what string, f func(*golibvirt.Libvirt) error) error {
	return o.in(ctx, o.longs, l, what, f)
}

func (o *owner) callOn(ctx context.Context, k *link, l limit, what string, f func(*golibvirt.Libvirt) error) error {
	select {
	case o.slots <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("%s: %w: %w", what, ErrUnavailable, context.Cause(ctx))
	}
	result, late := make(chan error, 1), make(chan struct{})
	go func() {
		release := sync.OnceFunc(func() { <-o.slots })
		defer release()
		expire := time.AfterFunc(l.after, func() {
			close(late)
			release() // a job left behind must not keep others from asking
			if l.hangs {
				k.kill()
			}
		})
		defer expire.Stop()
		result <- f(k.rpc)
	}()
	select {
	case err := <-result:
		if err != nil {
			return fmt.Errorf("%s: %w", what, classify(err))
		}
		return nil
	case <-late:
		return fmt.Errorf("%s: %w: no answer for %s", what, ErrUnknownOutcome, l.after)
	case <-ctx.Done(): // the call goes on; its effect comes as an event
		return fmt.Errorf("%s: %w: %w", what, ErrUnknownOutcome, context.Cause(ctx))
	}
}

// classify gives an error of the library the meaning a caller branches on.
func classify(err error) error {
	var e golibvirt.Error
	if !errors.As(err, &e) { // not libvirt's answer: the connection broke
		return fmt.Errorf("%w: %w", ErrUnknownOutcome, err)
	}
	switch golibvirt.ErrorNumber(e.Code) {
	case golibvirt.ErrNoDomain, golibvirt.ErrDeviceMissing:
		return fmt.Errorf("%w: %w", ErrNotFound, err)
	case golibvirt.ErrOperationInvalid:
		return fmt.Errorf("%w: %w", ErrBadState, err)
	case golibvirt.ErrBlockCopyActive, golibvirt.ErrResourceBusy, golibvirt.ErrOperationTimeout:
		return fmt.Errorf("%w: %w", ErrBusy, err) // the last: another job holds the domain
	default:
		return err
	}
}

// dialed hands the library a connection that is open already.
type dialed struct{ conn net.Conn }

func (d dialed) Dial() (net.Conn, error) { return d.conn, nil }

// watchedConn reports the end of the connection on dead, whoever notices first.
type watchedConn struct {
	net.Conn
	once sync.Once
	dead chan struct{}
}

func (c *watchedConn) kill() { _ = c.Close() }

func (c *watchedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil {
		c.kill()
	}
	return n, err
}

// Close may be called by the library, by a time limit and by the owner.
func (c *watchedConn) Close() (err error) {
	c.once.Do(func() {
		close(c.dead)
		err = c.Conn.Close()
	})
	return err
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
