package debian

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// maxLine bounds one line of a control file. The longest lines of a Packages
// index are dependency lists and tags of a few KiB; archives of Debian Rust
// crates reach some tens of KiB in Provides.
const maxLine = 1 << 20

// A paragraph is one block of "Field: value" lines; continuation lines are
// joined with newlines. Field names are lower case.
type paragraph map[string]string

// eachParagraph calls yield for every paragraph of a deb822 file and stops when
// yield returns an error. The map is reused: yield must not keep it. Only the
// fields named in want are kept, all of them when want is nil.
func eachParagraph(r io.Reader, want map[string]bool, yield func(paragraph) error) error {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), maxLine)
	p, field := paragraph{}, ""
	flush := func() error {
		defer clear(p)
		field = ""
		if len(p) == 0 {
			return nil
		}
		return yield(p)
	}
	for n := 1; sc.Scan(); n++ {
		line := sc.Text()
		switch {
		case strings.TrimSpace(line) == "":
			if err := flush(); err != nil {
				return err
			}
		case line[0] == '#':
		case line[0] == ' ' || line[0] == '\t':
			if field != "" {
				p[field] += "\n" + strings.TrimSpace(line)
			}
		default:
			name, value, ok := strings.Cut(line, ":")
			if !ok {
				return fmt.Errorf("line %d: %q is not a field", n, line)
			}
			field = strings.ToLower(strings.TrimSpace(name))
			if want != nil && !want[field] {
				field = ""
				continue
			}
			p[field] = strings.TrimSpace(value)
		}
	}
	if err := sc.Err(); err != nil {
		return err
	}
	return flush()
}
