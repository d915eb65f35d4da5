package catalogue

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestCatalogueIsValid(t *testing.T) {
	if err := Validate(All()); err != nil {
		t.Fatal(err)
	}
}

// What the issue and the architecture fix about single services.
func TestFixedFacts(t *testing.T) {
	by := map[string]Service{}
	for _, s := range All() {
		by[s.Name] = s
	}
	for _, name := range []string{"udevd", "udev-trigger", "hostd", "virtlogd", "libvirtd", "chronyd", "toolstackd"} {
		if _, ok := by[name]; !ok {
			t.Errorf("service %s is missing", name)
		}
	}
	for _, a := range by["libvirtd"].Argv {
		if strings.Contains(a, "--timeout") {
			t.Errorf("libvirtd would end by itself: %q", a)
		}
	}
	for _, name := range []string{"libvirtd", "virtlogd"} {
		if by[name].Kill != KillMain {
			t.Errorf("a stop of %s would kill what it started", name)
		}
	}
	if slices.Contains(by["virtlogd"].Needs, "libvirtd") {
		t.Error("virtlogd would stop before libvirtd")
	}
	if by["toolstackd"].Owner.User != "cairn" {
		t.Error("toolstackd must not run as root")
	}
	for _, name := range []string{"udevd", "hostd", "toolstackd"} {
		if by[name].Class != Critical {
			t.Errorf("%s is not critical", name)
		}
	}
}

func TestAllReturnsACopy(t *testing.T) {
	a := All()
	a[0].Argv[0] = "/changed"
	if All()[0].Argv[0] == "/changed" {
		t.Error("All shares its slices between callers")
	}
}

func TestValidate(t *testing.T) {
	good := func(name string, needs ...string) Service {
		return Service{
			Name: name, Argv: []string{"/bin/" + name}, Needs: needs, Ready: Ready{Kind: Notify},
			Class: Restartable, StartTimeout: time.Second, Grace: time.Second, Kill: KillGroup,
		}
	}
	with := func(s Service, change func(*Service)) Service { change(&s); return s }
	sock := Listen{Name: "https", Network: "tcp", Address: "[::]:443"}
	tests := []struct {
		name string
		list []Service
		want string // part of the error; empty is valid
	}{
		{"valid", []Service{good("a"), good("b", "a")}, ""},
		{"twice", []Service{good("a"), good("a")}, "declared twice"},
		{"unknown need", []Service{good("a", "x")}, `needs unknown service "x"`},
		{"itself", []Service{good("a", "a")}, "needs itself"},
		{"cycle", []Service{good("a", "b"), good("b", "c"), good("c", "a"), good("d")}, "cycle: a, b, c"},
		{"name", []Service{good("../a")}, "name is not"},
		{"relative", []Service{with(good("a"), func(s *Service) { s.Argv[0] = "a" })}, "absolute path"},
		{"no timeout", []Service{with(good("a"), func(s *Service) { s.StartTimeout = 0 })}, "must be positive"},
		{"class", []Service{with(good("a"), func(s *Service) { s.Class = "x" })}, "unknown class"},
		{"exit", []Service{with(good("a"), func(s *Service) { s.Ready.Kind = Exit })}, "go together"},
		{"probe", []Service{with(good("a"), func(s *Service) { s.Ready.Kind = Probe })}, "lacks a command"},
		{"socket", []Service{with(good("a"), func(s *Service) { s.Ready.Kind = Socket })}, "lacks an absolute path"},
		{"socket without directory", []Service{with(good("a"), func(s *Service) { s.Ready = Ready{Kind: Socket, Path: "/run/a/s"} })}, "not among"},
		{"kill", []Service{with(good("a"), func(s *Service) { s.Kill = "" })}, "unknown kill mode"},
		{"file", []Service{with(good("a"), func(s *Service) { s.Files = []string{"/a/../b"} })}, "clean absolute"},
		{"limit", []Service{with(good("a"), func(s *Service) { s.Limits = []Limit{{NoFile, 2, 1}} })}, "soft is above hard"},
		{"shared socket", []Service{
			with(good("a"), func(s *Service) { s.Sockets = []Listen{sock} }),
			with(good("b"), func(s *Service) { s.Sockets = []Listen{sock} }),
		}, `is also of "a"`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := Validate(tt.list)
			if tt.want == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

func TestOrder(t *testing.T) {
	order, err := Order(All())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range All() {
		for _, n := range s.Needs {
			if slices.Index(order, n) > slices.Index(order, s.Name) {
				t.Errorf("%s comes before %s, which it needs: %v", s.Name, n, order)
			}
		}
	}
}
