package etcd

import (
	"log/slog"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logger hands etcd's warnings and errors to the journal; what it says besides
// is of no use on a host.
type logger struct {
	log     *slog.Logger
	closing atomic.Bool // its warnings are about what we are doing
}

func newLogger(l *slog.Logger) *logger { return &logger{log: l} }

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
