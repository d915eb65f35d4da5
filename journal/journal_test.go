package journal

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLine(t *testing.T) {
	tests := []struct {
		name string
		log  func(*slog.Logger)
		want string
	}{
		{"plain", func(l *slog.Logger) { l.Info("service-ready", "name", "libvirtd") }, "INFO hostd service-ready name=libvirtd"},
		{"duration", func(l *slog.Logger) { l.Warn("slow", "took", 1234567*time.Microsecond) }, "WARN hostd slow took=1.235s"},
		{"quoted", func(l *slog.Logger) { l.Error("failed", "err", errors.New("a b=c")) }, `ERROR hostd failed err="a b=c"`},
		{"newline cannot forge a line", func(l *slog.Logger) { l.Info("x", "v", "a\nb") }, `INFO hostd x v="a\nb"`},
		{"empty value", func(l *slog.Logger) { l.Info("x", "v", "") }, `INFO hostd x v=""`},
		{"component", func(l *slog.Logger) { l.With("component", "network").Info("up", "if", "eth0") }, "INFO network up if=eth0"},
		{"group", func(l *slog.Logger) { l.WithGroup("nic").With("a", 1).Info("x", "b", 2) }, "INFO hostd x nic.a=1 nic.b=2"},
		{"bounded", func(l *slog.Logger) { l.Info("x", "v", strings.Repeat("é", maxText)) }, "INFO hostd x v=" + strings.Repeat("é", maxText/2) + "…"},
		{"below level", func(l *slog.Logger) { l.Debug("x") }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var buf bytes.Buffer
			tt.log(New(&buf, "hostd"))
			_, got, _ := strings.Cut(strings.TrimSuffix(buf.String(), "\n"), " ")
			if got != tt.want {
				t.Errorf("got  %q\nwant %q", got, tt.want)
			}
		})
	}
}
