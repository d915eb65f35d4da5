package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/coreos/go-semver/semver"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"

	"cairn/toolstack/db"
)

// The defaults of Config.
const (
	// DefaultQuota is about ten times what 4,000 VMs take.
	DefaultQuota = 1 << 30
	// DefaultGarbage is small because each start reads all of it.
	DefaultGarbage = 4 << 20
	// DefaultFree is large because commits wait while the file is rewritten.
	DefaultFree = 128 << 20
)

const (
	// pairOverhead is about what etcd and its file add to a pair.
	pairOverhead = 256

	// readerWait is ample for etcd to close its reader of the state before.
	readerWait = 2 * time.Millisecond

	nearPercent  = 80 // of the quota: the alarm begins
	clearPercent = 75 // and ends below
)

// Level is how full the database is.
type Level int

// The levels.
const (
	Clear    Level = iota // below the alarm
	NearFull              // writes go on
	Full                  // writes are refused
)

func (l Level) String() string { return [...]string{"clear", "near-full", "full"}[l] }

func (l Level) severity() slog.Level {
	if l == Clear {
		return slog.LevelInfo
	}
	return slog.LevelWarn
}

// Alarm is a change of how full the database is.
type Alarm struct {
	Level       Level
	Used, Quota int64
}

// space is what the engine knows about its file. The mutex guards all of it.
type space struct {
	mu         sync.Mutex
	idle       *sync.Cond // on mu: compacting has ended
	compacting bool
	closed     bool

	used     int64 // bytes in use when last measured
	since    int64 // bytes written after that
	garbage  int64 // bytes written since the last compaction
	live     int64 // bytes in use after the last compaction
	revision int64 // of the last commit
	level    Level
}

func (s *space) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.idle.Broadcast()
}

// batchSize is what a batch asks of the quota. What the database notes for
// itself is free, or a full one could not be opened.
func batchSize(b db.Batch) (n int64) {
	for _, p := range b.Puts {
		if !strings.HasPrefix(p.Key, "meta/") {
			n += int64(len(p.Key)+len(p.Value)) + pairOverhead
		}
	}
	return n
}

func (e *Engine) quota() int64 { return orDefault(e.cfg.Quota, DefaultQuota) }

func orDefault(n, otherwise int64) int64 {
	if n > 0 {
		return n
	}
	return otherwise
}

// measure asks the file how much is in use.
func (e *Engine) measure() {
	e.space.used, e.space.since = e.server.Backend().SizeInUse(), 0
	if e.space.live == 0 {
		e.space.live = e.space.used
	}
}

// settle writes what etcd still buffers and measures again. Pages a commit of the
// file frees count as free two commits later, if nobody reads an older state; an
// empty commit does nothing, and etcd closes its own reader a little late.
func (e *Engine) settle() {
	file := e.server.Backend()
	for range 3 {
		tx := file.BatchTx()
		tx.LockOutsideApply()
		schema.UnsafeSetStorageVersion(tx, semver.New(version.Version))
		tx.Unlock()
		file.ForceCommit()
		time.Sleep(readerWait)
	}
	e.measure()
}

// reserve refuses a batch the quota has no room for. What only deletes passes,
// or nobody could make room.
func (e *Engine) reserve(ctx context.Context, size int64) error {
	s, quota := &e.space, e.quota()
	s.mu.Lock()
	defer s.mu.Unlock()
	if size == 0 || s.used+s.since+size <= quota {
		return nil
	}
	e.settle()
	if s.used+size > quota && s.garbage > 0 {
		e.compact(ctx)
	}
	if s.used+size <= quota {
		return nil
	}
	e.setLevel(Full)
	return fmt.Errorf("%w: %d of %d bytes used, %d more wanted", db.ErrFull, s.used, quota, size)
}

// written accounts for a commit. When old revisions weigh as much as the live
// data they are compacted beside the commits to come; a full database is
// compacted at once when somebody deletes.
func (e *Engine) written(size, revision int64) {
	s := &e.space
	s.mu.Lock()
	defer s.mu.Unlock()
	s.since += size
	s.garbage += max(size, pairOverhead)
	s.revision = revision
	switch {
	case s.level == Full && size == 0:
		e.compact(context.Background())
	case s.garbage > max(orDefault(e.cfg.Garbage, DefaultGarbage), s.live) && !s.compacting:
		go func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			e.compact(context.Background())
		}()
	case (s.used+s.since)*100 > e.quota()*nearPercent && s.since > e.quota()/100:
		e.settle()
	}
	e.judge()
}

// compact forgets all revisions but the newest, and shrinks the file when much
// of it is free then. It gives the lock away while etcd works, and waits for
// another compaction first.
func (e *Engine) compact(ctx context.Context) {
	s := &e.space
	for s.compacting && !s.closed {
		s.idle.Wait()
	}
	if s.closed {
		return
	}
	s.compacting, s.garbage = true, 0
	revision := s.revision
	if revision == 0 {
		revision = e.server.KV().Rev()
	}
	s.mu.Unlock()
	_, err := e.server.Compact(ctx, &pb.CompactionRequest{Revision: revision, Physical: true})
	s.mu.Lock()
	s.compacting = false
	s.idle.Broadcast()
	switch {
	case s.closed:
		return
	case err != nil && !errors.Is(err, mvcc.ErrCompacted):
		e.cfg.Log.Warn("database-compaction", "err", err)
		return
	}
	e.settle()
	s.live = s.used
	if free := e.server.Backend().Size() - s.used; free > max(orDefault(e.cfg.Free, DefaultFree), s.used) {
		if err := e.defragment(); err != nil {
			e.cfg.Log.Warn("database-rewrite", "err", err)
		}
	}
	e.judge()
}

// defragment rewrites the file without its free pages. Commits wait until the
// new file's name is on disk: with the old one a log that has gone on would not
// fit.
func (e *Engine) defragment() error {
	e.rewrite.Lock()
	defer e.rewrite.Unlock()
	if err := e.server.Defragment(); err != nil {
		return fmt.Errorf("defragment: %w", err)
	}
	e.measure()
	return syncDir(filepath.Join(e.cfg.Dir, "member", "snap"))
}

// judge raises or clears the alarm. Full ends only when there is room again.
func (e *Engine) judge() {
	s := &e.space
	percent := (s.used + s.since) * 100 / e.quota()
	switch {
	case percent < clearPercent:
		e.setLevel(Clear)
	case percent >= nearPercent && s.level == Clear, percent < nearPercent && s.level == Full:
		e.setLevel(NearFull)
	}
}

func (e *Engine) setLevel(l Level) {
	if e.space.level == l {
		return
	}
	e.space.level = l
	a := Alarm{Level: l, Used: e.space.used, Quota: e.quota()}
	e.cfg.Log.Log(context.Background(), l.severity(), "database-space", "level", l.String(), "used", a.Used, "quota", a.Quota)
	if e.cfg.OnAlarm != nil {
		e.cfg.OnAlarm(a)
	}
}
