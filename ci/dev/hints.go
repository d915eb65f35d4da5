package main

import (
	"fmt"
	"net"
	"strings"
)

// hints are three things to try.
func hints(cfg config) string {
	address, port, _ := net.SplitHostPort(cfg.Listen)
	xe := fmt.Sprintf("%s/xe -s %s -p %s -u %s -pw %s", cfg.Bin, address, port, user, password)
	guest := `vm-install template="Cairn demo guest" new-name-label=first && ` + xe + " vm-start vm=first"
	if cfg.SimHosts > 0 {
		guest = "vm-list power-state=halted --minimal"
	}
	var b strings.Builder
	fmt.Fprintln(&b, "Try in another terminal:")
	fmt.Fprintf(&b, "  %s host-list\n", xe)
	fmt.Fprintf(&b, "  %s %s\n", xe, guest)
	fmt.Fprintf(&b, "  curl -sk https://%s/jsonrpc -d '%s'\n", cfg.Listen,
		`{"jsonrpc":"2.0","id":1,"method":"session.login_with_password","params":["`+user+`","`+password+`"]}`)
	fmt.Fprintf(&b, "Logs and state are in %s. Ctrl-C ends everything.\n", cfg.Dir)
	return b.String()
}
