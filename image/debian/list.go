package debian

import (
	"bufio"
	"bytes"
	"fmt"
	"regexp"
	"strings"
)

// A List is what image/packages.list says: the wanted packages, and those that
// are left out although something depends on them.
type List struct {
	Want []string
	Omit map[string]bool
}

// packageName is the syntax of Debian policy §5.6.1.
var packageName = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)

// ParseList reads one name per line; "-name" omits a package; "#" starts a
// comment.
func ParseList(data []byte) (List, error) {
	l := List{Omit: map[string]bool{}}
	sc := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; sc.Scan(); n++ {
		text, _, _ := strings.Cut(sc.Text(), "#")
		name, omit := strings.CutPrefix(strings.TrimSpace(text), "-")
		if name == "" && !omit {
			continue
		}
		if !packageName.MatchString(name) {
			return List{}, fmt.Errorf("line %d: %q is not a package name", n, name)
		}
		if omit {
			l.Omit[name] = true
		} else {
			l.Want = append(l.Want, name)
		}
	}
	if err := sc.Err(); err != nil {
		return List{}, err
	}
	for _, name := range l.Want {
		if l.Omit[name] {
			return List{}, fmt.Errorf("package %s is both wanted and omitted", name)
		}
	}
	return l, nil
}
