package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"expvar"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/coreos/go-semver/semver"
	"go.etcd.io/etcd/api/v3/version"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/features"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"

	"cairn/journal"
)

// Config says where the engine lives and how large it may become.
type Config struct {
	Dir string
	Log *slog.Logger
	// Quota is how many bytes live data may take; 0 is DefaultQuota.
	Quota int64
	// OnAlarm hears of each change of how full the database is. It must
	// return soon and must not use the database.
	OnAlarm func(Alarm)

	// Garbage is how many bytes of old revisions are let lie at least before
	// they are compacted away, and Free how much free space in the file
	// before it is rewritten; 0 is DefaultGarbage and DefaultFree.
	Garbage, Free int64
}

const (
	memberName = "cairn"
	// peerURL names the only member; nothing listens on it.
	peerURL = "http://127.0.0.1:2380"

	// The only voter is told to campaign. The ticks are a second way to a
	// leader; slow ones spare an idle host the wake-ups, and keep out of the
	// replay at a start, in which raft may look for entries just dropped.
	tickMs        = 1000
	electionTicks = 2
	lookEvery     = 2 * time.Millisecond
	// Each start replays the log since the last snapshot: few entries and
	// small segments keep it short. A snapshot is three small writes.
	snapshotCount = 200
	// catchUp entries stay in memory; more than a start replays, for the same
	// reason as the ticks.
	catchUp      = 2 * snapshotCount
	segmentBytes = 4 << 20
	maxRequest   = 256 << 20
	maxTxnOps    = 1 << 20
	startTimeout = 60 * time.Second
	// bootDefragMB of free pages are given back at a start, before there is
	// anybody to wait for it.
	bootDefragMB = 64
)

// firstStart is the file that exists while a directory was never in use.
const firstStart = "first-start"

// segmentSize is a global of etcd's; it is the same for every engine.
var segmentSize sync.Once

// Open starts the engine and waits until it can serve.
func Open(ctx context.Context, c Config) (*Engine, error) {
	if c.Log == nil {
		c.Log = journal.Discard()
	}
	segmentSize.Do(func() { wal.SegmentSizeBytes = segmentBytes })
	lock, err := takeDir(ctx, c.Dir)
	if err != nil {
		return nil, fmt.Errorf("etcd in %s: %w", c.Dir, err)
	}
	e := &Engine{cfg: c, log: newLogger(c.Log), life: rand.Text(), lock: lock}
	e.space.idle = sync.NewCond(&e.space.mu)
	if err := e.open(ctx); err != nil {
		lock.Close()
		return nil, fmt.Errorf("etcd in %s: %w", c.Dir, err)
	}
	return e, nil
}

func (e *Engine) open(ctx context.Context) error {
	fresh, err := prepare(e.cfg.Dir)
	if err != nil {
		return err
	}
	if e.server, err = newServer(e.cfg, e.log); err != nil {
		return err
	}
	return e.start(ctx, fresh)
}

// ErrInUse is the answer for a directory that another process works on.
var ErrInUse = errors.New("in use by another process")

// A former process that is just ending gives the directory up within takeLimit.
const takeLimit = 5 * time.Second

// takeDir makes the directory and holds it for this engine alone. Without it the
// second process would wait in etcd for as long as the first one runs, deaf to
// all signals.
func takeDir(ctx context.Context, dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, takeLimit, ErrInUse)
	defer cancel()
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return f, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), f.Close())
		case <-time.After(retryPause):
		}
	}
}

// prepare reports whether the directory was never in use. What an
// interrupted first start left cannot be started again: a log without its first
// entry has no voter. Nothing in it was acknowledged, so it goes.
func prepare(dir string) (fresh bool, err error) {
	marker, member := filepath.Join(dir, firstStart), filepath.Join(dir, "member")
	switch _, err := os.Stat(marker); {
	case err == nil:
		if err := os.RemoveAll(member); err != nil {
			return false, err
		}
		return true, nil
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	if _, err := os.Stat(member); err == nil || !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if err := os.WriteFile(marker, nil, 0o600); err != nil {
		return false, err
	}
	return true, errors.Join(syncDir(dir), syncDir(filepath.Dir(dir)))
}

// syncDir makes the names in a directory durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// newServer reads what is on disk. etcd ends the process on some damage; here
// that is an error like any other.
func newServer(c Config, l *logger) (s *etcdserver.EtcdServer, err error) {
	cfg, err := serverConfig(c, l)
	if err != nil {
		return nil, err
	}
	defer func() {
		if p := recover(); p != nil {
			s, err = nil, fmt.Errorf("%v", p)
		}
	}()
	if s, err = etcdserver.NewServer(cfg); err != nil {
		return nil, err
	}
	setSchemaVersion(s)
	// etcd makes and renames its database file without this.
	return s, errors.Join(syncDir(cfg.MemberDir()), syncDir(cfg.SnapDir()), syncDir(c.Dir))
}

// setSchemaVersion does at once what etcd otherwise does when it happens to find
// the first raft term in the file, with an error until then.
func setSchemaVersion(s *etcdserver.EtcdServer) {
	tx := s.Backend().BatchTx()
	tx.LockOutsideApply()
	defer tx.Unlock()
	if schema.UnsafeReadStorageVersion(tx) == nil {
		schema.UnsafeSetStorageVersion(tx, semver.New(version.Version))
	}
}

// start runs the server until all that was ever committed is applied.
func (e *Engine) start(ctx context.Context, fresh bool) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	e.server.Start()
	if err := e.elect(ctx); err != nil {
		e.Close()
		return err
	}
	e.space.mu.Lock()
	e.measure()
	e.judge()
	e.space.mu.Unlock()
	if !fresh {
		return nil
	}
	if err := os.Remove(filepath.Join(e.cfg.Dir, firstStart)); err != nil {
		e.Close()
		return err
	}
	return syncDir(e.cfg.Dir)
}

// elect tells the only voter to campaign instead of waiting for its ticks, and
// returns when its first write as a leader is applied, and so everything before.
// A linearizable read would not do: with one voter it waits for what the log
// says is committed, which may be less than what was acknowledged.
func (e *Engine) elect(ctx context.Context) error {
	ticker := time.NewTicker(lookEvery)
	defer ticker.Stop()
	for {
		if e.server.Lead() == 0 && replayed() {
			e.campaign(ctx)
		}
		select {
		case <-e.server.ReadyNotify():
			return nil
		case <-ticker.C:
		case <-e.server.StopNotify():
			return errors.New("stopped while starting")
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// replayed tells whether raft knows everything in its log to be applied, without
// which it refuses to campaign. Only a published variable says so; it is of the
// server made last, and a process has one.
func replayed() bool {
	status, ok := expvar.Get("raft.status").(expvar.Func)
	if !ok {
		return false
	}
	s, ok := status.Value().(raft.Status)
	return ok && s.Applied > 0 && s.Applied >= s.HardState.GetCommit()
}

// campaign sends the message a leader sends to its successor. It is ignored by
// who cannot campaign yet; then the ticks do it.
func (e *Engine) campaign(ctx context.Context) {
	if len(e.server.Cluster().Members()) > 1 {
		return
	}
	id := uint64(e.server.MemberID())
	m := &raftpb.Message{Type: raftpb.MsgTimeoutNow.Enum(), To: &id, From: &id}
	if err := e.server.Process(ctx, m); err != nil {
		e.cfg.Log.Debug("etcd-campaign", "err", err)
	}
}

func serverConfig(c Config, l *logger) (config.ServerConfig, error) {
	u, err := url.Parse(peerURL)
	if err != nil {
		return config.ServerConfig{}, err
	}
	peers := types.URLs{*u}
	return config.ServerConfig{
		Name:                        memberName,
		DataDir:                     c.Dir,
		PeerURLs:                    peers,
		ClientURLs:                  peers,
		InitialPeerURLsMap:          types.URLsMap{memberName: peers},
		InitialClusterToken:         "cairn",
		NewCluster:                  true,
		TickMs:                      tickMs,
		ElectionTicks:               electionTicks,
		InitialElectionTickAdvance:  true,
		PreVote:                     true,
		SnapshotCount:               snapshotCount,
		SnapshotCatchUpEntries:      catchUp,
		MaxSnapFiles:                1,
		MaxWALFiles:                 1,
		MaxTxnOps:                   maxTxnOps,
		MaxRequestBytes:             maxRequest,
		StrictReconfigCheck:         true,
		AuthToken:                   "simple",
		BcryptCost:                  10, // unused, but zero is complained about
		BootstrapTimeout:            startTimeout,
		CompactHashCheckTime:        time.Hour,
		WarningApplyDuration:        time.Second,
		WarningUnaryRequestDuration: time.Second,
		MaxLearners:                 1,
		// etcd decides on its quota after the log has the entry; the engine
		// decides before, so etcd's is out of the way.
		QuotaBackendBytes:                 -1,
		BootstrapDefragThresholdMegabytes: bootDefragMB,
		V2Deprecation:                     config.V2DeprDefault,
		Logger:                            l.zap(),
		ServerFeatureGate:                 features.NewDefaultServerFeatureGate(memberName, nil),
		Metrics:                           "basic",
	}, nil
}
