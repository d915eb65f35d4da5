// Package etcd is the durable engine of the pool database: an etcd server
// inside the process with one voter, which listens nowhere. Requests go to it by
// function call, so no network, gRPC or certificate is involved until a pool has
// more members.
//
// A commit is one etcd transaction. It returns after raft has it in the
// write-ahead log and that is on disk (fsync). The settings favour a small
// host: short election ticks because there is nobody to wait for, small log
// segments, early snapshots of the raft log.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/features"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"cairn/journal"
	"cairn/toolstack/db"
)

// Config says where the engine lives.
type Config struct {
	Dir string
	Log *slog.Logger
}

const (
	memberName = "cairn"
	// peerURL names the only member; nothing listens on it.
	peerURL = "http://127.0.0.1:2380"
	prefix  = "cairn/"

	tickMs        = 25 // a leader is found within two or three ticks
	electionTicks = 2
	// snapshotCount and catchUp bound the raft entries kept in memory.
	snapshotCount = 2000
	catchUp       = 100
	segmentBytes  = 8 << 20
	maxRequest    = 64 << 20
	// keptRevisions of a key stay readable; nobody reads them, but a
	// compaction for each commit would cost more than it frees.
	keptRevisions = 1000
	startTimeout  = 60 * time.Second
	commitTimeout = 30 * time.Second
	loadPage      = 500
)

// Engine implements db.Engine.
type Engine struct {
	server *etcdserver.EtcdServer
	once   sync.Once
}

// segmentSize is a global of etcd's; it is the same for every engine.
var segmentSize sync.Once

// Open starts the engine and waits until it can serve.
func Open(ctx context.Context, c Config) (*Engine, error) {
	if c.Log == nil {
		c.Log = journal.Discard()
	}
	segmentSize.Do(func() { wal.SegmentSizeBytes = segmentBytes })
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return nil, err
	}
	cfg, err := serverConfig(c)
	if err != nil {
		return nil, err
	}
	server, err := etcdserver.NewServer(cfg)
	if err != nil {
		return nil, fmt.Errorf("etcd in %s: %w", c.Dir, err)
	}
	server.Start()
	e := &Engine{server: server}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-server.ReadyNotify():
		return e, nil
	case <-server.StopNotify():
		return nil, fmt.Errorf("etcd in %s stopped while starting", c.Dir)
	case <-ctx.Done():
		e.Close()
		return nil, fmt.Errorf("etcd in %s: %w", c.Dir, ctx.Err())
	}
}

func serverConfig(c Config) (config.ServerConfig, error) {
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
		MaxSnapFiles:                2,
		MaxWALFiles:                 2,
		MaxTxnOps:                   1 << 20,
		MaxRequestBytes:             maxRequest,
		AutoCompactionMode:          "revision",
		AutoCompactionRetention:     keptRevisions,
		StrictReconfigCheck:         true,
		AuthToken:                   "simple",
		BcryptCost:                  10, // unused, but zero is complained about
		BootstrapTimeout:            startTimeout,
		CompactHashCheckTime:        time.Hour,
		WarningApplyDuration:        time.Second,
		WarningUnaryRequestDuration: time.Second,
		MaxLearners:                 1,
		V2Deprecation:               config.V2DeprDefault,
		Logger:                      newLogger(c.Log),
		ServerFeatureGate:           features.NewDefaultServerFeatureGate(memberName, nil),
		Metrics:                     "basic",
	}, nil
}

// Load implements db.Engine.
func (e *Engine) Load(ctx context.Context, under string, f func(key string, value []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	start := []byte(prefix + under)
	end := rangeEnd(start)
	for {
		resp, err := e.server.Range(ctx, &pb.RangeRequest{Key: start, RangeEnd: end, Limit: loadPage})
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			if err := f(string(kv.Key[len(prefix):]), kv.Value); err != nil {
				return err
			}
		}
		if !resp.More || len(resp.Kvs) == 0 {
			return nil
		}
		start = append(resp.Kvs[len(resp.Kvs)-1].Key, 0)
	}
}

// rangeEnd is the first key after all that begin with the given bytes.
func rangeEnd(start []byte) []byte {
	end := append([]byte(nil), start...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return []byte{0}
}

// Commit implements db.Engine.
func (e *Engine) Commit(ctx context.Context, b db.Batch) error {
	ctx, cancel := context.WithTimeout(ctx, commitTimeout)
	defer cancel()
	ops := make([]*pb.RequestOp, 0, len(b.Puts)+len(b.Deletes))
	for _, k := range b.Deletes {
		ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
			RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(prefix + k)},
		}})
	}
	for _, p := range b.Puts {
		ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: []byte(prefix + p.Key), Value: p.Value},
		}})
	}
	resp, err := e.server.Txn(ctx, &pb.TxnRequest{Success: ops})
	if err == nil && !resp.Succeeded {
		err = errors.New("etcd refused the transaction")
	}
	return err
}

// Close implements db.Engine.
func (e *Engine) Close() error {
	e.once.Do(e.server.HardStop)
	return nil
}
