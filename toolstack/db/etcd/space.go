package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

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

// space is what the engine knows about its file.
type space struct {
	used     int64 // bytes in use when last measured
	since    int64 // bytes written after that
	garbage  int64 // bytes written since the last compaction
	live     int64 // bytes in use after the last compaction
	revision int64 // of the last commit
	level    Level
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

// settle writes what etcd still buffers and measures again.
func (e *Engine) settle() {
	e.server.Backend().ForceCommit()
	e.measure()
}

// reserve refuses a batch the quota has no room for. What only deletes passes,
// or nobody could make room.
func (e *Engine) reserve(ctx context.Context, size int64) error {
	s, quota := &e.space, e.quota()
	if size == 0 || s.used+s.since+size <= quota {
		return nil
	}
	e.settle()
	if s.used+size > quota && s.garbage > 0 {
		if err := e.compact(ctx); err != nil {
			return err
		}
	}
	if s.used+size <= quota {
		return nil
	}
	e.setLevel(Full)
	return fmt.Errorf("%w: %d of %d bytes used, %d more wanted", db.ErrFull, s.used, quota, size)
}

// written accounts for a commit, and compacts when old revisions weigh as much
// as the live data. It answers for nothing but the acknowledged commit, so
// trouble in here is only logged.
func (e *Engine) written(ctx context.Context, size, revision int64) {
	s := &e.space
	s.since += size
	s.garbage += max(size, pairOverhead)
	s.revision = revision
	full := s.level == Full && size == 0 // somebody makes room
	if full || s.garbage > max(orDefault(e.cfg.Garbage, DefaultGarbage), s.live) {
		if err := e.compact(ctx); err != nil {
			e.cfg.Log.Warn("database-compaction", "err", err)
		}
	} else if (s.used+s.since)*100 > e.quota()*nearPercent && s.since > e.quota()/100 {
		e.settle()
	}
	e.judge()
}

// compact forgets all revisions but the newest, and shrinks the file when much
// of it is free then.
func (e *Engine) compact(ctx context.Context) error {
	e.space.garbage = 0
	_, err := e.server.Compact(ctx, &pb.CompactionRequest{Revision: e.revision(), Physical: true})
	if err != nil && !errors.Is(err, mvcc.ErrCompacted) && !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("compact: %w", err)
	}
	e.settle()
	e.space.live = e.space.used
	free := e.server.Backend().Size() - e.space.used
	if free > max(orDefault(e.cfg.Free, DefaultFree), e.space.used) {
		return e.defragment()
	}
	return nil
}

func (e *Engine) revision() int64 {
	if e.space.revision == 0 {
		return e.server.KV().Rev()
	}
	return e.space.revision
}

// defragment rewrites the file without its free pages. Commits wait meanwhile.
func (e *Engine) defragment() error {
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
