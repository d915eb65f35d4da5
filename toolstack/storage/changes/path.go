package changes

import "errors"

// ErrUnrelated is two moments of which none leads to the other.
var ErrUnrelated = errors.New("no changes are known from the one to the other")

// MaxPath bounds how far apart in snapshots two moments are.
const MaxPath = 10000

// Path lists the moments after from up to and with to, the last first. since tells
// the moment before one; "" is none. The changes between from and to are those of all
// that are listed.
func Path(from, to string, since func(moment string) string) ([]string, error) {
	var path []string
	for at := to; at != ""; at = since(at) {
		if at == from {
			return path, nil
		}
		if len(path) == MaxPath {
			break
		}
		path = append(path, at)
	}
	return nil, ErrUnrelated
}
