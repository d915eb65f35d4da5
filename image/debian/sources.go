package debian

import (
	"bytes"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Mirrors are the two archives a Debian release lives in.
type Mirrors struct {
	Main     string // holds trixie and trixie-updates
	Security string // holds trixie-security
}

// An entry is one archive line of the machine's apt sources.
type entry struct {
	uris       []string
	suites     []string
	components []string
	signedBy   string
}

// releases are the names under which Debian's archive publishes suites. A
// mirror of any of them is expected to carry trixie as well.
var releases = map[string]bool{
	"bullseye": true, "bookworm": true, "trixie": true, "forky": true, "duke": true, "sid": true,
	"oldoldstable": true, "oldstable": true, "stable": true, "testing": true, "unstable": true,
}

// findMirrors decides which mirrors to use: CAIRN_MIRROR (one or two words:
// archive and security archive), else those of the machine's own apt sources
// below etcApt, else the default of the installed mmdebstrap program.
func findMirrors(override, etcApt, mmdebstrap string) (Mirrors, error) {
	if words := strings.Fields(override); len(words) > 0 {
		return completeMirrors(Mirrors{Main: words[0], Security: second(words)}), nil
	}
	entries, err := readSources(etcApt)
	if err != nil {
		return Mirrors{}, err
	}
	if m := mirrorsOf(entries); m.Main != "" {
		return completeMirrors(m), nil
	}
	if program, err := os.ReadFile(mmdebstrap); err == nil {
		if m := mirrorsOfProgram(program); m.Main != "" {
			return completeMirrors(m), nil
		}
	}
	return Mirrors{}, errors.New("no Debian mirror: the apt sources name none and mmdebstrap is not installed; set CAIRN_MIRROR")
}

func second(words []string) string {
	if len(words) > 1 {
		return words[1]
	}
	return ""
}

// completeMirrors derives the security archive, which by convention is
// published beside the main one.
func completeMirrors(m Mirrors) Mirrors {
	m.Main = strings.TrimRight(m.Main, "/")
	m.Security = strings.TrimRight(m.Security, "/")
	if m.Security == "" {
		base, isList := strings.CutSuffix(m.Main, ".list") // a mirror+file list
		m.Security = base + "-security"
		if isList {
			m.Security += ".list"
		}
	}
	return m
}

// readSources reads every .list and .sources file apt itself would read.
func readSources(etcApt string) ([]entry, error) {
	parts, err := filepath.Glob(filepath.Join(etcApt, "sources.list.d", "*"))
	if err != nil {
		return nil, err
	}
	var entries []entry
	for _, name := range append([]string{filepath.Join(etcApt, "sources.list")}, parts...) {
		read := parseList
		switch filepath.Ext(name) {
		case ".list":
		case ".sources":
			read = parseDeb822
		default:
			continue
		}
		data, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		got, err := read(data)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		entries = append(entries, got...)
	}
	return entries, nil
}

// option matches the bracketed options of a one-line entry.
var option = regexp.MustCompile(`^\s*\[([^\]]*)\]`)

// parseList reads the one-line format: deb [options] uri suite components…
func parseList(data []byte) ([]entry, error) {
	var entries []entry
	for line := range strings.Lines(string(data)) {
		line, _, _ = strings.Cut(line, "#")
		rest, ok := strings.CutPrefix(strings.TrimSpace(line), "deb")
		if !ok || rest == "" || !strings.ContainsAny(rest[:1], " \t[") {
			continue
		}
		var e entry
		if m := option.FindStringSubmatch(rest); m != nil {
			rest = rest[len(m[0]):]
			for _, o := range strings.Fields(m[1]) {
				if v, ok := strings.CutPrefix(o, "signed-by="); ok {
					e.signedBy = v
				}
			}
		}
		words := strings.Fields(rest)
		if len(words) < 2 {
			continue
		}
		e.uris, e.suites, e.components = words[:1], words[1:2], words[2:]
		entries = append(entries, e)
	}
	return entries, nil
}

// parseDeb822 reads the paragraph format of *.sources files.
func parseDeb822(data []byte) ([]entry, error) {
	var entries []entry
	err := eachParagraph(bytes.NewReader(data), nil, func(p paragraph) error {
		if p["enabled"] == "no" || !slices.Contains(strings.Fields(p["types"]), "deb") {
			return nil
		}
		entries = append(entries, entry{
			uris:       strings.Fields(p["uris"]),
			suites:     strings.Fields(p["suites"]),
			components: strings.Fields(p["components"]),
			signedBy:   p["signed-by"],
		})
		return nil
	})
	return entries, err
}

// mirrorsOf picks the first archive and the first security archive of Debian
// among the entries; those of other distributions and vendors do not count.
func mirrorsOf(entries []entry) Mirrors {
	var m Mirrors
	for _, e := range entries {
		if !e.isDebian() {
			continue
		}
		for _, suite := range e.suites {
			uri, security := e.uris[0], false
			for _, s := range []string{"-security", "/updates"} {
				if base, ok := strings.CutSuffix(suite, s); ok {
					suite, security = base, true
				}
			}
			if !releases[strings.TrimSuffix(suite, "-updates")] {
				continue
			}
			if security && m.Security == "" {
				m.Security = uri
			} else if !security && m.Main == "" {
				m.Main = uri
			}
		}
	}
	return m
}

// isDebian tells Debian's archive from a vendor's that borrows its suite names:
// it has a component main and either Debian's keyring or, where no keyring is
// named, a path such as /debian.
func (e entry) isDebian() bool {
	if len(e.uris) == 0 || !slices.Contains(e.components, "main") || strings.HasPrefix(e.uris[0], "cdrom:") {
		return false
	}
	if e.signedBy != "" {
		return strings.Contains(e.signedBy, "debian-archive")
	}
	u, err := url.Parse(e.uris[0])
	if err != nil {
		return false
	}
	return strings.HasPrefix(path.Base(u.Path), "debian")
}

// Defaults as mmdebstrap's source spells them.
var (
	defaultMain     = regexp.MustCompile(`\$mirror\s*=\s*'([^']+)'`)
	defaultSecurity = regexp.MustCompile(`\$secmirror\s*=\s*'([^']+)'`)
)

// mirrorsOfProgram reads the default mirrors out of the mmdebstrap script.
func mirrorsOfProgram(program []byte) Mirrors {
	var m Mirrors
	if f := defaultMain.FindSubmatch(program); f != nil {
		m.Main = string(f[1])
	}
	if f := defaultSecurity.FindSubmatch(program); f != nil {
		m.Security = string(f[1])
	}
	return m
}
