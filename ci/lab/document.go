package lab

import (
	"fmt"

	"cairn/init/config"
)

// Document is a configuration document for a lab host: its name, the password
// of root, and any further lines of YAML.
func Document(hostname, password string, lines ...string) string {
	text := fmt.Sprintf("version: 1\nhostname: %s\nroot:\n  password_hash: %q\n", hostname, config.HashPassword(password))
	for _, l := range lines {
		text += l + "\n"
	}
	return text
}
