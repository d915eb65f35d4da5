package kernelconfig

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// maxLine bounds a line of a kernel configuration; the longest values are
// command lines and key paths.
const maxLine = 64 << 10

// Parse reads a kernel configuration (.config, /boot/config-*) into symbol →
// value. Strings keep their quotes; a symbol that "is not set" has value "n".
func Parse(r io.Reader) (map[string]string, error) {
	values := map[string]string{}
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 4<<10), maxLine)
	for n := 1; sc.Scan(); n++ {
		line := strings.TrimSpace(sc.Text())
		if off, ok := strings.CutSuffix(line, " is not set"); ok && strings.HasPrefix(off, "# CONFIG_") {
			line = off[2:] + "=n"
		}
		if line == "" || line[0] == '#' {
			continue
		}
		symbol, value, ok := strings.Cut(line, "=")
		if !ok || !isSymbol(symbol) || value == "" {
			return nil, fmt.Errorf("kernel configuration: line %d: %q is not a symbol and its value", n, line)
		}
		if _, twice := values[symbol]; twice {
			return nil, fmt.Errorf("kernel configuration: line %d: %s is set twice", n, symbol)
		}
		values[symbol] = value
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("kernel configuration: %w", err)
	}
	return values, nil
}

func isSymbol(s string) bool {
	name, ok := strings.CutPrefix(s, "CONFIG_")
	if !ok || name == "" {
		return false
	}
	for _, c := range []byte(name) {
		if c != '_' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return true
}
