// Package db is the pool database: typed records with relations kept by the
// database, transactions, a change feed, and an engine below that makes writes
// durable.
//
// All reads come from an immutable in-memory Snapshot and take no lock. Writes
// are transactions applied one after another; Update returns when the engine
// has the transaction on disk, and transactions that wait at the same time
// share one write. Records of volatile classes (session, task) live in
// memory only. Records got from a Snapshot or from Get on a Tx are shared and
// must not be changed; Edit gives a private copy.
//
// Invariants: after any crash or power cut every transaction that was
// acknowledged is there, none is there by half, generations are higher than any a
// client has seen, and derived sets equal what the stored references say. No two
// objects of a class get one uuid: a transaction that would do that is refused. A
// record keeps what another version wrote into it. When the engine is full
// Update answers OUT_OF_SPACE; deletes and reads go on.
//
// A relation such as VBD.VM ↔ VM.VBDs is stored on its first side; the set on
// the second is derived here and anything written to it is ignored. Inside a
// transaction those sets are as they were before it.
package db

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"

	"cairn/journal"
	"cairn/toolstack/api"
)

// Options configure a DB.
type Options struct {
	// Log gets a line when the engine fails. Nothing is logged without it.
	Log *slog.Logger
}

// generationBlock is how many generations one write to the engine reserves.
// Generations only grow, over restarts too, because clients keep them in
// event tokens.
const generationBlock = 1 << 20

const (
	metaPrefix    = "meta/"
	generationKey = metaPrefix + "generation"
)

// DB is an open database.
type DB struct {
	engine  Engine
	log     *slog.Logger
	feed    feed
	foreign []Pair // of classes this version does not know; never changed

	published atomic.Pointer[Snapshot]

	mu       sync.Mutex // serialises transactions and guards what follows
	head     *Snapshot  // with all transactions so far, durable or not
	reserved uint64     // generations below are reserved in the engine
	queue    []*commit  // built, not yet durable
	closed   bool

	wake chan struct{} // cap 1: the queue is not empty
	done chan struct{} // closed when the committer has ended
}

// commit is one transaction on its way to the engine.
type commit struct {
	batch   Batch
	next    *Snapshot
	changes []Change
	ack     chan error
}

// ErrDuplicate is what Update answers where two objects would have one uuid.
var ErrDuplicate = errors.New("a uuid is taken")

// ErrClosed is what Update answers after Close.
var ErrClosed = errors.New("database is closed")

// Open loads all objects from the engine, which the DB then owns.
func Open(ctx context.Context, engine Engine, o Options) (*DB, error) {
	d := &DB{engine: engine, log: o.Log, wake: make(chan struct{}, 1), done: make(chan struct{})}
	if d.log == nil {
		d.log = journal.Discard()
	}
	l, err := load(ctx, engine)
	if err != nil {
		return nil, fmt.Errorf("load database: %w", err)
	}
	d.foreign = l.foreign
	d.reserved = l.start + generationBlock
	if err := engine.Commit(ctx, Batch{Puts: []Pair{generationPair(d.reserved)}}); err != nil {
		return nil, fmt.Errorf("reserve generations: %w", err)
	}
	d.head = l.snap
	d.published.Store(l.snap)
	d.feed.start(l.start)
	go d.commitLoop()
	return d, nil
}

func generationPair(n uint64) Pair {
	return Pair{Key: generationKey, Value: strconv.AppendUint(nil, n, 10)}
}

// Close ends the database after what was accepted is durable.
func (d *DB) Close() error {
	d.mu.Lock()
	already := d.closed
	d.closed = true
	d.mu.Unlock()
	if already {
		return nil
	}
	d.signal()
	<-d.done
	d.feed.close()
	return d.engine.Close()
}

// Snapshot returns the newest durable state.
func (d *DB) Snapshot() *Snapshot { return d.published.Load() }

// Update runs f as a transaction and returns when it is durable. When f fails
// nothing happens and its error is returned as it is. f must not call Update.
func (d *DB) Update(ctx context.Context, f func(tx *Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	c, err := d.apply(f)
	if err != nil || c == nil {
		return err
	}
	d.signal()
	return <-c.ack
}

// apply runs the transaction on the newest state and queues what it changed;
// it returns nil when that is nothing.
func (d *DB) apply(f func(tx *Tx) error) (*commit, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, ErrClosed
	}
	tx := newTx(d.head)
	defer tx.end()
	if err := f(tx); err != nil {
		return nil, err
	}
	if len(tx.writes) == 0 {
		return nil, nil
	}
	if err := tx.unique(); err != nil {
		return nil, err
	}
	c := tx.commit()
	if c.next.generation >= d.reserved {
		d.reserved += generationBlock
		c.batch.Puts = append(c.batch.Puts, generationPair(d.reserved))
	}
	d.head = c.next
	d.queue = append(d.queue, c)
	return c, nil
}

func (d *DB) signal() {
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// commitLoop writes queued transactions, all that wait in one batch.
func (d *DB) commitLoop() {
	defer close(d.done)
	for range d.wake {
		for {
			d.mu.Lock()
			group := d.queue
			d.queue = nil
			closed := d.closed
			d.mu.Unlock()
			if len(group) == 0 {
				if closed {
					return
				}
				break
			}
			d.commitGroup(group)
		}
	}
}

func (d *DB) commitGroup(group []*commit) {
	var batch Batch
	for _, c := range group {
		batch.add(c.batch)
	}
	var err error
	if !batch.empty() {
		err = d.engine.Commit(context.Background(), batch)
	}
	if err != nil {
		group = d.abandon(group)
		d.log.Error("commit-failed", "err", err, "transactions", len(group))
		if errors.Is(err, ErrFull) {
			err = fmt.Errorf("%w (%w)", api.ErrOutOfSpace("database"), err)
		}
	} else {
		d.publish(group)
	}
	for _, c := range group {
		c.ack <- err
	}
}

// abandon forgets a failed group and everything built on top of it.
func (d *DB) abandon(group []*commit) []*commit {
	d.mu.Lock()
	defer d.mu.Unlock()
	group = append(group, d.queue...)
	d.queue = nil
	d.head = d.published.Load()
	return group
}

func (d *DB) publish(group []*commit) {
	var changes []Change
	for _, c := range group {
		changes = append(changes, c.changes...)
	}
	last := group[len(group)-1].next
	d.feed.append(changes, func() { d.published.Store(last) })
}

// HandleInvalid is the error for a reference to nothing.
func HandleInvalid(class *api.ClassInfo, ref string) error {
	return api.ErrHandleInvalid(class.Name, api.RefText(ref))
}
