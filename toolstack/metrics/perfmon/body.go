package perfmon

import (
	"encoding/xml"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Alarm is the name of the messages that tell of values beyond their limits.
const Alarm = "ALARM"

// What stands before the value and the rule in an alarm's text.
const (
	beforeValue = "value: "
	beforeRule  = "\nconfig:\n"
)

// Body is the text of an alarm, which clients parse.
func (r Rule) Body(value float64) string {
	return fmt.Sprintf(beforeValue+"%f"+beforeRule+"%s\n", value, r.Text)
}

var errBody = errors.New("perfmon: not the text of an alarm")

// ReadBody reads what Body has written. Messages of that name may be others', too, so
// what is not understood is no more than that.
func ReadBody(text string) (r Rule, value float64, err error) {
	head, config, _ := strings.Cut(text, beforeRule)
	number, ok := strings.CutPrefix(head, beforeValue)
	if !ok {
		return Rule{}, 0, errBody
	}
	if value, err = strconv.ParseFloat(number, 64); err != nil {
		return Rule{}, 0, fmt.Errorf("%w: value %.80q", errBody, number)
	}
	rules, err := Parse("<config>" + config + "</config>")
	if err != nil {
		return Rule{}, 0, fmt.Errorf("%w: %w", errBody, err)
	}
	if len(rules) != 1 {
		return Rule{}, 0, fmt.Errorf("%w: %d rules", errBody, len(rules))
	}
	return rules[0], value, nil
}

// quote writes a variable as alarms have it in their text.
func quote(elements []element) string {
	var b strings.Builder
	b.WriteString("<variable>\n")
	for _, e := range elements {
		fmt.Fprintf(&b, "\t<%s value=\"", e.XMLName.Local)
		_ = xml.EscapeText(&b, []byte(e.Value)) // a Builder takes all
		b.WriteString("\"/>\n")
	}
	b.WriteString("</variable>")
	return b.String()
}
