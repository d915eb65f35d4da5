package debian

import (
	"context"
	"os"
)

// Machine returns the mirrors a tree is fetched from and, in the syntax of
// apt.conf, the machine's own settings for reaching them. It is for programs
// that make other Debian systems, such as the peer of a benchmark.
func Machine(ctx context.Context) (m Mirrors, aptConf string, err error) {
	m, err = findMirrors(os.Getenv("CAIRN_MIRROR"), "/etc/apt", "/usr/bin/mmdebstrap")
	return m, transport(ctx), err
}
