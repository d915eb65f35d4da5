// Package etcd is the durable engine of the pool database: an etcd server
// inside the process with one voter, which listens nowhere. Requests go to it by
// function call, so no network, gRPC or certificate is involved until a pool has
// more members.
//
// Invariants:
//   - A commit is one etcd transaction. It returns after raft has it in the
//     write-ahead log and that is on disk (fdatasync); what was not answered may
//     be there after a crash or not, but never by half.
//   - A directory whose first start was interrupted never acknowledged anything;
//     it is begun anew. Every other directory is repaired or refused, never
//     emptied.
//   - Old revisions are of no use to anybody: they are compacted away as soon as
//     they weigh as much as the live data, so the file is bounded by about twice
//     the live data.
//   - At the quota puts are refused with db.ErrFull before they reach the log;
//     deletes and reads go on.
//
// An Engine is used by one goroutine at a time, as db.Engine says. It compacts in
// one of its own, so OnAlarm comes from either, one call after the other.
package etcd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"

	"cairn/toolstack/db"
)

const (
	prefix     = "cairn/" // of the pairs; etcd holds the engine's own beside them
	loadPage   = 500
	retryPause = 100 * time.Millisecond
)

// Engine implements db.Engine.
type Engine struct {
	cfg     Config
	server  *etcdserver.EtcdServer
	log     *logger
	life    string // of this engine, for the tokens of its commits
	commits uint64
	space   space
	rewrite sync.Mutex // held by a transaction, and while the file is replaced
	once    sync.Once
	lock    *os.File // held while the directory is in use
}

// Load implements db.Engine. The state is complete since Open (see elect), so it
// is read without asking for agreement first.
func (e *Engine) Load(ctx context.Context, under string, f func(key string, value []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	start := []byte(prefix + under)
	end := rangeEnd(start)
	for {
		resp, err := e.server.Range(ctx, &pb.RangeRequest{Key: start, RangeEnd: end, Limit: loadPage, Serializable: true})
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

// Commit implements db.Engine. While the disk hangs etcd answers that it does not
// know what became of a transaction; it is asked again then, until it does know.
func (e *Engine) Commit(ctx context.Context, b db.Batch) error {
	size := batchSize(b)
	if err := e.reserve(ctx, size); err != nil {
		return err
	}
	e.commits++
	txn := transaction(b, fmt.Sprintf("%s-%d", e.life, e.commits))
	for {
		e.rewrite.Lock()
		resp, err := e.server.Txn(ctx, txn)
		e.rewrite.Unlock()
		if err == nil {
			e.written(size, resp.Header.Revision)
			return nil
		}
		if !unknown(err) {
			return err
		}
		e.cfg.Log.Warn("database-slow", "err", err)
		select {
		case <-time.After(retryPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// unknown tells whether a transaction with this answer may have happened or may
// still happen.
func unknown(err error) bool {
	for _, e := range []error{
		etcderrors.ErrTimeout, etcderrors.ErrTimeoutDueToLeaderFail, etcderrors.ErrTimeoutDueToConnectionLost,
		etcderrors.ErrTooManyRequests, etcderrors.ErrLeaderChanged, etcderrors.ErrNoLeader,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// transaction is a batch that happens once however often it is asked for: not if
// the token is already there.
func transaction(b db.Batch, token string) *pb.TxnRequest {
	const key = "engine/commit"
	ops := make([]*pb.RequestOp, 0, len(b.Puts)+len(b.Deletes)+1)
	put := func(k string, v []byte) {
		ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{
			RequestPut: &pb.PutRequest{Key: []byte(k), Value: v},
		}})
	}
	for _, k := range b.Deletes {
		ops = append(ops, &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{
			RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(prefix + k)},
		}})
	}
	for _, p := range b.Puts {
		put(prefix+p.Key, p.Value)
	}
	put(key, []byte(token))
	done := &pb.Compare{
		Key: []byte(key), Target: pb.Compare_VALUE, Result: pb.Compare_EQUAL,
		TargetUnion: &pb.Compare_Value{Value: []byte(token)},
	}
	return &pb.TxnRequest{Compare: []*pb.Compare{done}, Failure: ops}
}

// Close implements db.Engine.
func (e *Engine) Close() error {
	e.once.Do(func() {
		e.log.closing.Store(true)
		e.space.close()
		e.server.HardStop()
		e.lock.Close()
	})
	return nil
}
