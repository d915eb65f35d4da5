package debug

import (
	"bufio"
	"errors"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// Process is one user-space process of the host.
type Process struct {
	PID    int    `json:"pid"`
	Parent int    `json:"parent"`
	Name   string `json:"name"`           // the kernel's name for it, at most 15 bytes
	Argv   string `json:"argv,omitempty"` // words joined by spaces
	RSSKiB int    `json:"rss"`
	PSSKiB int    `json:"pss"` // shared pages divided among their users
}

// Processes lists what runs, kernel threads left out, below a proc directory.
func Processes(proc string) ([]Process, error) {
	names, err := filepath.Glob(filepath.Join(proc, "[0-9]*"))
	if err != nil {
		return nil, err
	}
	var all []Process
	for _, dir := range names {
		p, err := readProcess(dir)
		if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrProcessDone) {
			continue // ended meanwhile
		}
		if p.Argv != "" {
			all = append(all, p)
		}
	}
	sort.Slice(all, func(i, j int) bool { return all[i].PID < all[j].PID })
	return all, nil
}

func readProcess(dir string) (Process, error) {
	var p Process
	var err error
	if p.PID, err = strconv.Atoi(filepath.Base(dir)); err != nil {
		return p, err
	}
	argv, err := os.ReadFile(filepath.Join(dir, "cmdline"))
	if err != nil {
		return p, err
	}
	p.Argv = clip(strings.TrimRight(strings.ReplaceAll(string(argv), "\x00", " "), " "))
	status, err := fields(filepath.Join(dir, "status"))
	if err != nil {
		return p, err
	}
	p.Name, p.Parent, p.RSSKiB = status["Name"], number(status["PPid"]), number(status["VmRSS"])
	rollup, err := fields(filepath.Join(dir, "smaps_rollup"))
	p.PSSKiB = number(rollup["Pss"])
	return p, err
}

// fields reads a file of "Key:  value" lines.
func fields(name string) (map[string]string, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m := map[string]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		if k, v, ok := strings.Cut(s.Text(), ":"); ok {
			m[k] = strings.TrimSpace(v)
		}
	}
	return m, s.Err()
}

// number reads the leading number of values such as "1234 kB".
func number(s string) int {
	word, _, _ := strings.Cut(s, " ")
	n, _ := strconv.Atoi(word)
	return n
}
