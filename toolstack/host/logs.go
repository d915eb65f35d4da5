package host

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Service is the toolstack's name among the host's services.
const Service = "toolstackd"

// logLines is how much of a log one answer holds.
const logLines = 1000

// registerLogs binds what lets an administrator look into a host.
func (m *Manager) registerLogs(r *api.Registry) {
	api.HandleHostGetLog(r, m.getLog)
	api.HandleHostDmesg(r, m.kernelLog(m.cfg.Hostd.KernelLog))
	api.HandleHostDmesgClear(r, m.kernelLog(m.cfg.Hostd.ClearKernelLog))
	api.HandleHostGetThreadDiagnostics(r, m.threads)
	api.HandleHostListMethods(r, func(*api.Call) ([]string, error) { return methods(), nil })
	api.HandleDiagnosticsGcStats(r, m.gcStats)
	api.HandleDiagnosticsGcCompact(r, func(_ *api.Call, ref api.HostRef) error {
		if err := m.isThis(ref); err != nil {
			return err
		}
		debug.FreeOSMemory()
		return nil
	})
	api.HandleDiagnosticsDbStats(r, m.dbStats)
}

// getLog is the end of the toolstack's log.
func (m *Manager) getLog(c *api.Call, ref api.HostRef) (string, error) {
	if err := m.isThis(ref); err != nil {
		return "", err
	}
	logs, err := m.cfg.Hostd.Logs(c, Service, logLines)
	var refused *client.Error
	if errors.As(err, &refused) && refused.Code == client.CodeNotFound {
		return "", nil // nothing was logged yet
	}
	if err != nil || len(logs.Lines) == 0 {
		return "", err
	}
	return strings.Join(logs.Lines, "\n") + "\n", nil
}

// kernelLog answers the kernel's messages as dmesg shows them, without levels.
func (m *Manager) kernelLog(ask func(context.Context) (client.KernelLog, error)) func(*api.Call, api.HostRef) (string, error) {
	return func(c *api.Call, ref api.HostRef) (string, error) {
		if err := m.isThis(ref); err != nil {
			return "", err
		}
		log, err := ask(c)
		var b strings.Builder
		for line := range strings.Lines(log.Text) {
			b.WriteString(withoutLevel(line))
		}
		return b.String(), err
	}
}

func withoutLevel(line string) string {
	if level, rest, ok := strings.Cut(line, ">"); ok && strings.HasPrefix(level, "<") {
		if _, err := strconv.Atoi(level[1:]); err == nil {
			return rest
		}
	}
	return line
}

// threads says what the toolstack is busy with: equal stacks once, with how many
// are in each.
func (m *Manager) threads(_ *api.Call, ref api.HostRef) (string, error) {
	if err := m.isThis(ref); err != nil {
		return "", err
	}
	var b bytes.Buffer
	err := pprof.Lookup("goroutine").WriteTo(&b, 1)
	return b.String(), err
}

// methods are the messages that clients may know of.
func methods() []string {
	messages := api.Messages()
	all := make([]string, 0, len(messages))
	for i := range messages {
		if !messages[i].Hidden {
			all = append(all, messages[i].Method)
		}
	}
	return all
}

func (m *Manager) gcStats(_ *api.Call, ref api.HostRef) (map[string]string, error) {
	if err := m.isThis(ref); err != nil {
		return nil, err
	}
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return map[string]string{
		"heap_bytes": fmt.Sprint(s.HeapAlloc), "heap_objects": fmt.Sprint(s.HeapObjects), "system_bytes": fmt.Sprint(s.Sys),
		"collections": fmt.Sprint(s.NumGC), "pause_total_ns": fmt.Sprint(s.PauseTotalNs), "goroutines": fmt.Sprint(runtime.NumGoroutine()),
	}, nil
}

// dbStats counts what the database holds.
func (m *Manager) dbStats(*api.Call) (map[string]string, error) {
	snap := m.cfg.DB.Snapshot()
	stats := map[string]string{"generation": fmt.Sprint(snap.Generation())}
	classes := api.Classes()
	for i := range classes {
		class, n := &classes[i], 0
		snap.Objects(class, func(*db.Object) bool { n++; return true })
		if n > 0 {
			stats["objects:"+class.Name] = strconv.Itoa(n)
		}
	}
	return stats, nil
}
