package debian

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestCompareVersions(t *testing.T) {
	ascending := [][2]string{
		{"1.0", "1.1"}, {"1.9", "1.10"}, {"1.0~rc1", "1.0"}, {"1.0~~", "1.0~"}, {"1.0", "1.0a"}, {"1.0a", "1.0+b"},
		{"1.0-1", "1.0-2"}, {"1.0-1", "1.0-1+deb13u1"}, {"9.0-1", "1:1.0-1"}, {"6.12.107-1", "6.12.117-1"},
		{"1:10.0.2+ds-2", "1:10.0.13+ds-0+deb13u1"}, {"1.0-1~bpo1", "1.0-1"}, {"18446744073709551615", "18446744073709551616"},
	}
	for _, p := range ascending {
		if compareVersions(p[0], p[1]) != -1 || compareVersions(p[1], p[0]) != 1 {
			t.Errorf("want %s < %s", p[0], p[1])
		}
	}
	for _, p := range [][2]string{{"1.0", "1.00"}, {"0:1.0", "1.0"}, {"1.0-", "1.0"}, {"1.2.3-4", "1.2.3-4"}} {
		if compareVersions(p[0], p[1]) != 0 {
			t.Errorf("want %s = %s", p[0], p[1])
		}
	}
}

func FuzzCompareVersions(f *testing.F) {
	f.Add("1:1.0~rc1-1", "1.0-1+b1", "2")
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ab, bc := compareVersions(a, b), compareVersions(b, c)
		if ab != -compareVersions(b, a) {
			t.Errorf("%q and %q have no order", a, b)
		}
		if ab <= 0 && bc <= 0 && compareVersions(a, c) > 0 {
			t.Errorf("%q ≤ %q ≤ %q, yet the first is above the last", a, b, c)
		}
	})
}

func TestParseList(t *testing.T) {
	l, err := ParseList([]byte("# tools\nqemu-utils  # images\n\n-dpkg\nlibstdc++6\n"))
	if err != nil || !slices.Equal(l.Want, []string{"qemu-utils", "libstdc++6"}) || !l.Omit["dpkg"] {
		t.Errorf("got %v, %v", l, err)
	}
	for text, want := range map[string]string{
		"a b": "line 1", "ok\n-": "line 2", "Upper": "line 1", "dpkg\n-dpkg": "both wanted and omitted",
	} {
		if _, err := ParseList([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

const sum = "6d31339b1630153fe7c5f8a51426b8fa6ce35731aeb015a84f2d333c4e4dca30"

func TestLock(t *testing.T) {
	pkgs := []Package{
		{Name: "zlib1g", Version: "1:1.3-1", Arch: "amd64", SHA256: sum},
		{Name: "ovmf", Version: "2025.02-8", Arch: "all", SHA256: strings.Repeat("a", 64)},
	}
	text := formatLock(treeHeader, pkgs)
	got, err := ParseLock(text)
	if err != nil {
		t.Fatal(err)
	}
	if want := []Package{pkgs[1], pkgs[0]}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if !bytes.Equal(formatLock(treeHeader, got), text) {
		t.Error("a lock does not survive being read and written")
	}
	for text, want := range map[string]string{
		"a 1 amd64":                                  "line 1",
		"aa 1 amd64 " + sum[1:]:                      "line 1",
		"aa 1 amd64 " + strings.ToUpper(sum):         "line 1",
		"aa 1 all " + sum + "\naa 2 all " + sum:      "locked twice",
		"#\naa 1 all " + sum + "\n/etc 2 all " + sum: "line 3",
	} {
		if _, err := ParseLock([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q", text, err, want)
		}
	}
}

func FuzzParseLock(f *testing.F) {
	f.Add([]byte("ovmf 2025.02-8 all " + sum))
	f.Fuzz(func(t *testing.T, data []byte) {
		pkgs, err := ParseLock(data)
		if err != nil {
			return
		}
		again, err := ParseLock(formatLock(treeHeader, pkgs))
		if err != nil || len(again) != len(pkgs) {
			t.Errorf("%d packages, then %d, %v", len(pkgs), len(again), err)
		}
	})
}

// TestShippedListsAndLocks keeps the files of the tree readable and in step.
func TestShippedListsAndLocks(t *testing.T) {
	for dir, header := range map[string]string{"..": treeHeader, "../../ci/lab/foreign": otherHeader, "../../ci/lab/trixie": otherHeader} {
		t.Run(dir, func(t *testing.T) { inStep(t, dir+"/packages", header) })
	}
}

func inStep(t *testing.T, name, header string) {
	listText, err := os.ReadFile(name + ".list")
	if err != nil {
		t.Fatal(err)
	}
	lockText, err := os.ReadFile(name + ".lock")
	if err != nil {
		t.Fatal(err)
	}
	list, err := ParseList(listText)
	if err != nil {
		t.Fatal(err)
	}
	lock, err := ParseLock(lockText)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(formatLock(header, lock), lockText) {
		t.Error("packages.lock was edited by hand")
	}
	locked := map[string]bool{}
	for _, p := range lock {
		locked[p.Name] = true
		if list.Omit[p.Name] {
			t.Errorf("package %s is locked and omitted", p.Name)
		}
	}
	for _, name := range list.Want {
		if !locked[name] {
			t.Errorf("package %s is wanted and not locked; run make lock", name)
		}
	}
}

func TestFindMirrors(t *testing.T) {
	tests := []struct {
		name     string
		override string
		files    map[string]string
		program  string
		want     Mirrors
	}{
		{
			name: "one-line format", files: map[string]string{"sources.list": `
# deb http://commented.test/debian bookworm main
deb-src http://source.test/debian bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian/ bookworm main contrib
deb http://security.test/debian-security bookworm-security main
`}, want: Mirrors{"http://mirror.test/debian", "http://security.test/debian-security"},
		},
		{
			name: "paragraph format", files: map[string]string{"sources.list.d/debian.sources": `Types: deb deb-src
URIs: http://mirror.test/debian
Suites: trixie trixie-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.pgp

# security
Types: deb
URIs: http://mirror.test/other-security
Suites: trixie-security
Components: main
`}, want: Mirrors{"http://mirror.test/debian", "http://mirror.test/debian-security"},
		},
		{
			name: "vendors and disabled entries do not count", files: map[string]string{
				"sources.list.d/a.list":    "deb [signed-by=/k/vendor.gpg] http://vendor.test/debian bookworm main\ndeb http://vendor.test/apt bookworm main\n",
				"sources.list.d/b.list":    "deb http://docker.test/linux/debian bookworm stable\ndeb cdrom:[Debian 12]/ bookworm main\n",
				"sources.list.d/c.sources": "Enabled: no\nTypes: deb\nURIs: http://off.test/debian\nSuites: bookworm\nComponents: main\n",
				"sources.list.d/d.list":    "deb http://real.test/debian stable main\n",
				"sources.list.d/e.save":    "not for apt",
			}, want: Mirrors{"http://real.test/debian", "http://real.test/debian-security"},
		},
		{
			name: "a mirror list keeps its method", files: map[string]string{
				"sources.list": "deb mirror+file:///etc/apt/mirrors/debian.list bookworm main\n",
			}, want: Mirrors{"mirror+file:///etc/apt/mirrors/debian.list", "mirror+file:///etc/apt/mirrors/debian-security.list"},
		},
		{
			name: "another distribution falls back to the program", files: map[string]string{
				"sources.list": "deb http://ubuntu.test/ubuntu noble main universe\n",
			}, program: "my $mirror    = 'http://default.test/debian';\nmy $secmirror = 'http://sec.test/debian-security';\n",
			want: Mirrors{"http://default.test/debian", "http://sec.test/debian-security"},
		},
		{name: "given by hand", override: "http://hand.test/debian/", want: Mirrors{"http://hand.test/debian", "http://hand.test/debian-security"}},
		{name: "given by hand, both", override: "http://a.test/x http://b.test/y", want: Mirrors{"http://a.test/x", "http://b.test/y"}},
		{name: "none"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			files := map[string]string{"mmdebstrap": tt.program}
			for name, text := range tt.files {
				files["apt/"+name] = text
			}
			for name, text := range files {
				file := filepath.Join(dir, name)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			got, err := findMirrors(tt.override, filepath.Join(dir, "apt"), filepath.Join(dir, "mmdebstrap"))
			if (err != nil) != (tt.want == Mirrors{}) || got != tt.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func FuzzSources(f *testing.F) {
	f.Add("deb [arch=amd64] http://m.test/debian bookworm main", "Types: deb\nURIs: http://m.test/debian\nSuites: sid\nComponents: main\n")
	f.Fuzz(func(t *testing.T, list, deb822 string) {
		a, _ := parseList([]byte(list))
		b, err := parseDeb822([]byte(deb822))
		if err != nil {
			b = nil
		}
		mirrorsOf(append(a, b...)) // must not panic
	})
}

func TestFilterTransport(t *testing.T) {
	dump := "APT::Architecture \"arm64\";\nAcquire::http::Proxy \"http://proxy.test:3128\";\nAcquire::Languages \"\";\n" +
		"Acquire::IndexTargets::deb::X \"\";\nAcquire::https::CAInfo \"/ca\";\nAcquire::Check-Valid-Until \"false\";\n"
	want := "Acquire::http::Proxy \"http://proxy.test:3128\";\nAcquire::https::CAInfo \"/ca\";\nAcquire::Check-Valid-Until \"false\";\n"
	if got := filterTransport([]byte(dump)); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}
