package supervise

import (
	"strings"
	"time"

	"cairn/init/supervise/catalogue"
)

// debugOption on the kernel's command line names the serial port on which the
// lab may act inside the host.
const debugOption = "cairn.debug="

// labServices are the services a kernel command line asks for on top of the
// catalogue; only a directly booted kernel can ask, see labCommandLine.
func labServices(cmdline string) []catalogue.Service {
	for word := range strings.FieldsSeq(cmdline) {
		tty, ok := strings.CutPrefix(word, debugOption)
		if ok && tty != "" && strings.Trim(tty, "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ") == "" {
			return []catalogue.Service{debugService(tty)}
		}
	}
	return nil
}

// debugService runs package init/debug, a role of this program.
func debugService(tty string) catalogue.Service {
	return catalogue.Service{
		Name:         "debug",
		Argv:         []string{ownPath(), "debug", "/dev/" + tty},
		Ready:        catalogue.Ready{Kind: catalogue.Notify},
		Class:        catalogue.Restartable,
		StartTimeout: 60 * time.Second,
		Grace:        time.Second,
		Kill:         catalogue.KillGroup,
		OOMScore:     -900,
	}
}
