// Package units tells whether Debian still runs its daemons the way Cairn's
// service catalogue assumes. It reads the packaged systemd unit of a service at
// image build and renders what matters as text, to be compared with a golden
// file; nothing of a unit is interpreted on the host.
//
// Everything here is pure and safe for concurrent use.
package units

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
)

// keys of the [Service] section that the catalogue's entries were written from.
var keys = []string{
	"Type", "ExecStart", "ExecStartPre", "ExecReload", "EnvironmentFile", "Environment", "User", "Group",
	"RuntimeDirectory", "StateDirectory", "CacheDirectory", "KillMode", "OOMScoreAdjust", "WatchdogSec",
	"TimeoutStartSec", "Restart", "PIDFile", "Delegate", "TasksMax",
}

// Summary renders the keys of a unit that matter, one per line, sorted.
func Summary(r io.Reader) (string, error) {
	sections, err := unit.DeserializeSections(r)
	if err != nil {
		return "", fmt.Errorf("unit file: %w", err)
	}
	var lines []string
	for _, s := range sections {
		if s.Section != "Service" {
			continue
		}
		for _, e := range s.Entries {
			if slices.Contains(keys, e.Name) || strings.HasPrefix(e.Name, "Limit") {
				lines = append(lines, e.Name+"="+words(e.Value))
			}
		}
	}
	if lines == nil {
		return "", fmt.Errorf("unit file: no [Service] section")
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n") + "\n", nil
}

// words joins continued lines and runs of blanks.
func words(value string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(value, "\\\n", " ")), " ")
}

// Drift compares a unit with its golden summary and says what differs.
func Drift(name, golden string, r io.Reader) error {
	got, err := Summary(r)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if got == golden {
		return nil
	}
	was, is := strings.Split(golden, "\n"), strings.Split(got, "\n")
	var diff []string
	for _, l := range was {
		if !slices.Contains(is, l) {
			diff = append(diff, "-"+l)
		}
	}
	for _, l := range is {
		if !slices.Contains(was, l) {
			diff = append(diff, "+"+l)
		}
	}
	return fmt.Errorf("%s: Debian's unit changed; compare with the catalogue, then update the golden file: %s",
		name, strings.Join(diff, " "))
}
