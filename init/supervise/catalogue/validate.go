package catalogue

import (
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// Validate reports every rule that the list breaks: names are unique and plain,
// needs exist and have no cycle, each readiness has what it needs, times are
// set, and no two services share a socket name or address.
func Validate(services []Service) error {
	var errs []error
	byName := map[string]Service{}
	for _, s := range services {
		if _, dup := byName[s.Name]; dup {
			errs = append(errs, fmt.Errorf("service %q: declared twice", s.Name))
		}
		byName[s.Name] = s
		for _, err := range s.check() {
			errs = append(errs, fmt.Errorf("service %q: %w", s.Name, err))
		}
	}
	errs = append(errs, checkSockets(services)...)
	for _, s := range services {
		for _, n := range s.Needs {
			if _, ok := byName[n]; !ok {
				errs = append(errs, fmt.Errorf("service %q: needs unknown service %q", s.Name, n))
			}
		}
	}
	for _, s := range services {
		for _, o := range s.After {
			if _, ok := byName[o]; !ok {
				errs = append(errs, fmt.Errorf("service %q: comes after unknown service %q", s.Name, o))
			}
		}
	}
	if len(errs) == 0 {
		_, err := Order(services)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// Order returns the names so that each comes after all it needs, and otherwise
// by name. A cycle is an error that names its members.
func Order(services []Service) ([]string, error) {
	left := slices.Clone(services)
	slices.SortFunc(left, func(a, b Service) int { return strings.Compare(a.Name, b.Name) })
	var order []string
	for len(left) > 0 {
		i := slices.IndexFunc(left, func(s Service) bool {
			return !slices.ContainsFunc(s.Needs, func(n string) bool { return !slices.Contains(order, n) })
		})
		if i < 0 {
			return nil, fmt.Errorf("services need each other in a cycle: %s", strings.Join(names(left), ", "))
		}
		order = append(order, left[i].Name)
		left = slices.Delete(left, i, i+1)
	}
	return order, nil
}

func names(services []Service) []string {
	var out []string
	for _, s := range services {
		out = append(out, s.Name)
	}
	return out
}

func (s Service) check() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	if s.Name == "" || strings.Trim(s.Name, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		bad("name is not made of a-z, 0-9 and -")
	}
	if len(s.Argv) == 0 || !path.IsAbs(s.Argv[0]) {
		bad("argv does not start with an absolute path")
	}
	if slices.Contains(s.Needs, s.Name) {
		bad("needs itself")
	}
	if (len(s.After) > 0) != (s.AfterLimit > 0) || s.AfterLimit > time.Minute {
		bad("comes after others without a limit of up to a minute")
	}
	if s.StartTimeout <= 0 || s.Grace <= 0 || s.Watchdog < 0 {
		bad("start timeout and grace must be positive")
	}
	if s.Grace > time.Minute {
		bad("grace %v is longer than a minute", s.Grace)
	}
	if s.OOMScore < -1000 || s.OOMScore > 1000 {
		bad("oom score %d is not in -1000..1000", s.OOMScore)
	}
	if s.CPUWeight < 0 || s.CPUWeight > 10000 {
		bad("cpu weight %d is not in 0..10000", s.CPUWeight)
	}
	if s.Kill != KillGroup && s.Kill != KillMain {
		bad("unknown kill mode %q", s.Kill)
	}
	errs = append(errs, s.checkReady()...)
	return append(errs, s.checkPaths()...)
}

func (s Service) checkReady() []error {
	var errs []error
	bad := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }
	switch s.Class {
	case Critical, Restartable, Oneshot:
	default:
		bad("unknown class %q", s.Class)
	}
	if (s.Class == Oneshot) != (s.Ready.Kind == Exit) {
		bad("readiness by exit and class oneshot go together")
	}
	switch s.Ready.Kind {
	case Notify, Exit:
	case Socket:
		if !path.IsAbs(s.Ready.Path) {
			bad("readiness by socket lacks an absolute path")
		}
		// PID 1 watches this directory before the service could make it.
		if !slices.ContainsFunc(s.Dirs, func(d Dir) bool { return d.Path == path.Dir(s.Ready.Path) }) {
			bad("the directory of its socket is not among its directories")
		}
	case Probe:
		if len(s.Ready.Argv) == 0 || !path.IsAbs(s.Ready.Argv[0]) {
			bad("readiness by probe lacks a command")
		}
	default:
		bad("unknown readiness %q", s.Ready.Kind)
	}
	if s.Watchdog > 0 && s.Ready.Kind != Notify {
		bad("a watchdog needs readiness by notify")
	}
	return errs
}

func (s Service) checkPaths() []error {
	var errs []error
	check := func(what, p string) {
		if _, err := path.Match(p, ""); err != nil || !path.IsAbs(p) || path.Clean(p) != p {
			errs = append(errs, fmt.Errorf("%s %q is not a clean absolute path", what, p))
		}
	}
	for _, p := range s.Programs {
		check("program", p)
	}
	for _, p := range s.Files {
		check("file", p)
	}
	for _, d := range s.Dirs {
		check("directory", d.Path)
	}
	if s.Unit != "" {
		check("unit", s.Unit)
	}
	for _, e := range s.Env {
		if !strings.Contains(e, "=") {
			errs = append(errs, fmt.Errorf("environment %q has no =", e))
		}
	}
	for _, l := range s.Limits {
		if l.Soft > l.Hard {
			errs = append(errs, fmt.Errorf("limit %s: soft is above hard", l.Resource))
		}
	}
	return errs
}

func checkSockets(services []Service) []error {
	var errs []error
	seen := map[string]string{}
	for _, s := range services {
		for _, l := range s.Sockets {
			if l.Name == "" || strings.ContainsAny(l.Name, ": \n") {
				errs = append(errs, fmt.Errorf("service %q: socket name %q is not plain", s.Name, l.Name))
			}
			if l.Network != "tcp" && (l.Network != "unix" || !path.IsAbs(l.Address)) {
				errs = append(errs, fmt.Errorf("service %q: socket %q: bad address", s.Name, l.Name))
			}
			for _, key := range []string{"name " + l.Name, "address " + l.Address} {
				if other, dup := seen[key]; dup {
					errs = append(errs, fmt.Errorf("service %q: socket %s is also of %q", s.Name, key, other))
				}
				seen[key] = s.Name
			}
		}
	}
	return errs
}
