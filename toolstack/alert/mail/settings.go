package mail

import (
	"fmt"
	"net"
	netmail "net/mail"
	"strconv"
	"strings"

	"cairn/toolstack/api"
)

// Keys of the pool's other_config.
const (
	destinationKey = "mail-destination"
	hubKey         = "ssmtp-mailhub"
	priorityKey    = "mail-min-priority"
	senderKey      = "mail-sender"
)

// keys are what is said under the keys, in this order. They can be compared.
type keys [4]string

const (
	destinationAt = iota
	hubAt
	priorityAt
	senderAt
)

func keysOf(config map[string]string) keys {
	return keys{config[destinationKey], config[hubKey], config[priorityKey], config[senderKey]}
}

const (
	// defaultLeast is the least priority that is sent: 1 is the highest.
	defaultLeast = 3
	smtpPort     = "25"
	// maxReceivers bounds how many one message goes to.
	maxReceivers = 50
)

// settings say who gets which messages by which server.
type settings struct {
	to    []string // nobody: nothing is sent
	from  string   // "": made of the host's name
	hub   string   // host:port
	least int64
}

// wants reports whether a message is one to be sent.
func (s settings) wants(x *api.Message) bool {
	return len(s.to) > 0 && s.hub != "" && x.Priority <= s.least
}

func parseSettings(said keys) (s settings, err error) {
	s.least = defaultLeast
	if text := said[priorityAt]; text != "" {
		if s.least, err = strconv.ParseInt(text, 10, 32); err != nil {
			return settings{}, fmt.Errorf("%s is %.80q", priorityKey, text)
		}
	}
	if text := said[destinationAt]; text != "" {
		list, err := netmail.ParseAddressList(text)
		if err == nil && len(list) > maxReceivers {
			err = fmt.Errorf("%d addresses are more than %d", len(list), maxReceivers)
		}
		if err != nil {
			return settings{}, fmt.Errorf("%s is %.80q: %w", destinationKey, text, err)
		}
		for _, a := range list {
			s.to = append(s.to, a.Address)
		}
	}
	if text := said[senderAt]; text != "" {
		a, err := netmail.ParseAddress(text)
		if err != nil {
			return settings{}, fmt.Errorf("%s is %.80q: %w", senderKey, text, err)
		}
		s.from = a.Address
	}
	s.hub = hub(said[hubAt])
	return s, nil
}

// hub adds the port where none is said.
func hub(text string) string {
	text = strings.TrimSpace(text)
	if text == "" {
		return ""
	}
	if _, _, err := net.SplitHostPort(text); err == nil {
		return text
	}
	return net.JoinHostPort(strings.Trim(text, "[]"), smtpPort)
}
