package etcd

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logger hands etcd's warnings and errors to the journal; what it says besides
// is of no use on a host.
type logger struct {
	log     *slog.Logger
	now     func() time.Time
	closing atomic.Bool // its warnings are about what we are doing

	mu   sync.Mutex
	said map[string]time.Time // when a warning was last written, by text
}

func newLogger(l *slog.Logger) *logger {
	return &logger{log: l, now: time.Now, said: map[string]time.Time{}}
}

// sayEvery is how often one and the same warning is written: etcd repeats some as fast
// as it tries again.
const sayEvery = time.Second

// maxSaid bounds what is remembered; etcd's texts are fixed, and few.
const maxSaid = 1000

// again reports whether a warning was written a moment ago.
func (l *logger) again(text string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	if last, yes := l.said[text]; yes && now.Sub(last) < sayEvery {
		return true
	}
	if len(l.said) >= maxSaid {
		clear(l.said)
	}
	l.said[text] = now
	return false
}

// zap is the logger as etcd wants it. What etcd calls fatal is a panic, which
// ends the process no less, but while opening it becomes an error.
func (l *logger) zap() *zap.Logger {
	return zap.New(&core{logger: l}, zap.WithFatalHook(zapcore.WriteThenPanic))
}

type core struct {
	*logger
	fields []zapcore.Field
}

// noise are warnings that are normal for a single member that listens nowhere.
var noise = map[string]bool{
	"exceeded recommended request limit":           true,
	"simple token is not cryptographically signed": true,
	"set the initial cluster version":              true,
}

// Enabled implements zapcore.Core.
func (c *core) Enabled(l zapcore.Level) bool { return l >= zapcore.WarnLevel }

// With implements zapcore.Core.
func (c *core) With(f []zapcore.Field) zapcore.Core {
	return &core{c.logger, append(append([]zapcore.Field(nil), c.fields...), f...)}
}

// Check implements zapcore.Core.
func (c *core) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if !c.Enabled(e.Level) || noise[e.Message] || e.Level == zapcore.WarnLevel && c.closing.Load() {
		return ce
	}
	return ce.AddCore(e, c)
}

// Write implements zapcore.Core.
func (c *core) Write(e zapcore.Entry, fields []zapcore.Field) error {
	if e.Level == zapcore.WarnLevel && c.again(e.Message) {
		return nil
	}
	enc := zapcore.NewMapObjectEncoder()
	for _, f := range append(append([]zapcore.Field(nil), c.fields...), fields...) {
		f.AddTo(enc)
	}
	attrs := []any{"text", e.Message}
	for k, v := range enc.Fields {
		attrs = append(attrs, k, v)
	}
	if e.Level >= zapcore.ErrorLevel {
		c.log.Error("etcd-error", attrs...)
	} else {
		c.log.Warn("etcd-warning", attrs...)
	}
	return nil
}

// Sync implements zapcore.Core.
func (c *core) Sync() error { return nil }
