package xe

import (
	"slices"
	"strings"

	"cairn/toolstack/datamodel/text"
)

const usageText = `Usage: xe <command> [-s server] [-p port] [-u user] [-pw password | -pwf file] [name=value]…
For the commands: xe help; for all of them: xe help --all
`

// help lists the commands, or says what one takes.
func (s *session) help() error {
	asked := make([]string, 0, len(s.Params))
	for _, p := range s.Params.Without(standard...) {
		asked = append(asked, p.Name)
	}
	if s.Command != "help" && s.Command != "" {
		asked = []string{s.Command}
	}
	for _, name := range asked {
		if err := s.helpOn(name); err != nil {
			return err
		}
	}
	if len(asked) == 0 {
		s.listCommands()
	}
	return nil
}

func (s *session) listCommands() {
	all := s.Params.True("all")
	keep := func(c *Command) bool { return c.flag("Standard") }
	if all {
		keep = func(c *Command) bool { return !c.flag("Hidden") }
	}
	names := s.cat.names(keep, all)
	s.out.say("%s", usageText)
	if all {
		s.out.say("All commands:")
	} else {
		s.out.say("Everyday commands:")
		names = append(names, "vm-list", "network-list", "sr-list", "host-list")
		slices.Sort(names)
	}
	for _, n := range names {
		if s.out.minimal {
			s.out.list(n)
			continue
		}
		s.out.say("  %-34s %s", n, s.cat.summary(n))
	}
	if !all {
		s.out.say("\nxe help --all tells all, xe help <command> what one takes.")
	}
}

// summary is one line about a command: what the message it calls does.
func (c *Catalogue) summary(name string) string {
	if class := c.generic[name]; class != nil {
		return genericHelp[strings.TrimPrefix(name, class.Name+"-")]
	}
	if s, ok := codedHelp[name]; ok {
		return s
	}
	p, err := parsePlan(c.explicit[name].plan)
	if err != nil || p.code {
		return ""
	}
	return messageText(p.alternatives[len(p.alternatives)-1].method)
}

// messageText is what the reference of the API says of a message.
func messageText(method string) string {
	class, message, _ := strings.Cut(method, ".")
	if doc := classText(class).Messages[message].Doc; doc != "" {
		return doc
	}
	return map[string]string{"create": "Make one.", "destroy": "Remove one."}[message]
}

// classTexts keeps what was read, as help on all commands asks often.
var classTexts = map[string]*text.Class{}

func classText(class string) *text.Class {
	if classTexts[class] == nil {
		t, err := text.OfClass(class)
		if err != nil {
			t = &text.Class{}
		}
		classTexts[class] = t
	}
	return classTexts[class]
}

// genericHelp is said of the commands every class has.
var genericHelp = map[string]string{
	"list":         "List the objects that fit all the filters.",
	"param-list":   "Show every field of one object.",
	"param-get":    "Show one field, or one entry of a map with param-key=.",
	"param-set":    "Write fields, and entries of maps as map:key=value.",
	"param-add":    "Add param-key= to a set, or key=value pairs to a map.",
	"param-remove": "Take one element out of a set or one key out of a map.",
	"param-clear":  "Empty one field.",
}

// codedHelp is said of the commands no single message stands for.
var codedHelp = map[string]string{
	"vm-install": "Make a VM from a template and print its uuid.", "vm-create": "Make a VM without anything in it.",
	"vm-uninstall":       "Stop and remove VMs with the disks only they use.",
	"snapshot-uninstall": "Remove a snapshot with its disks.", "template-uninstall": "Remove a template with its disks.",
	"vm-is-bios-customized": "Tell whose BIOS strings a VM shows.", "console": "Use the serial console of a VM; Ctrl-] leaves it.",
	"vm-disk-list": "List the disks of VMs.", "vm-cd-list": "List the CD drives of VMs.", "snapshot-disk-list": "List the disks of a snapshot.",
	"vm-disk-add": "Make a new disk and attach it to a VM.", "vm-disk-remove": "Detach and destroy a disk of a VM.",
	"vm-cd-add": "Give a VM a CD drive with a CD in it.", "vm-cd-remove": "Take a CD drive away from a VM.",
	"vm-cd-insert": "Put a CD into the empty drive of a VM.", "vm-cd-eject": "Take the CD out of a VM's drive.",
	"vm-vif-list": "List the network interfaces of VMs.", "cd-list": "List the CD images.",
	"vlan-destroy": "Remove a VLAN.", "hostdriver-select": "Choose the variant of a driver by name.",
	"subject-add":               "Let a user or group of the external authentication in.",
	"event-wait":                "Wait until an object fits all the filters; name=/=value waits for another value.",
	"diagnostic-license-status": "Tell the edition of each host.", "diagnostic-vdi-status": "Show a disk and who uses it.",
	"diagnostic-vm-status":                  "Tell on which hosts a VM can run, and why not on others.",
	"session-subject-identifier-logout-all": "End the sessions of all users of the external authentication.",
	"audit-log-get":                         "Save the audit log to a file.", "vm-export": "Save a VM to a file.", "vm-import": "Make VMs from a file.",
	"template-export": "Save a template to a file.", "snapshot-export-to-template": "Save a snapshot to a file, as a template.",
	"blob-get": "Save a blob to a file.", "blob-put": "Fill a blob from a file.",
	"pool-dump-database": "Save the pool's database to a file.", "pool-restore-database": "Bring back a saved pool database.",
}

func (s *session) helpOn(name string) error {
	if class, ok := s.cat.generic[name]; ok {
		s.helpGeneric(name, class)
		return nil
	}
	c, ok := s.cat.explicit[name]
	if !ok {
		return s.unknownCommand(name)
	}
	s.out.say("%s\n    %s", name, s.cat.summary(name))
	s.helpParams("required", c.Required)
	s.helpParams("optional", c.Optional)
	switch c.selects() {
	case "vm":
		s.out.say("    selects VMs: uuid=, vm=<name or uuid>, or any field of vm-list; --multiple for several")
	case "host":
		s.out.say("    selects hosts: uuid=, host=<name or uuid>, or any field of host-list; --multiple for several")
	case "sr":
		s.out.say("    selects SRs: uuid=, sr=<name or uuid>, or any field of sr-list; --multiple for several")
	}
	if p, err := parsePlan(c.plan); err == nil && !p.code {
		var calls []string
		for _, st := range slices.Concat(p.alternatives, p.after) {
			if !slices.Contains(calls, st.method) {
				calls = append(calls, st.method)
			}
		}
		s.out.say("    calls: %s", strings.Join(calls, ", "))
	}
	return nil
}

func (s *session) helpParams(kind string, names []string) {
	if len(names) == 0 {
		return
	}
	shown := make([]string, len(names))
	for i, n := range names {
		shown[i] = n + "="
		if base, isMap := strings.CutSuffix(n, ":"); isMap {
			shown[i] = base + ":<key>="
		}
	}
	s.out.say("    %s: %s", kind, strings.Join(shown, " "))
}

func (s *session) helpGeneric(name string, class *Class) {
	verb := strings.TrimPrefix(name, class.Name+"-")
	s.out.say("%s\n    %s", name, genericHelp[verb])
	switch verb {
	case "list":
		s.helpParams("optional", []string{"params", "<field>", "<map>:<key>", "<set>:contains"})
	case "param-list", "param-set":
		s.helpParams("required", []string{"uuid"})
	case "param-remove":
		s.helpParams("required", []string{"uuid", "param-name", "param-key"})
	default:
		s.helpParams("required", []string{"uuid", "param-name"})
	}
	s.out.say("    fields of class %s:", class.API)
	about := classText(class.API)
	for _, f := range class.Fields {
		doc := ""
		if !strings.Contains(f.From, ".") {
			doc = about.Fields[f.From]
		}
		s.out.say("      %-40s %s", f.label(), doc)
	}
}

// unknownCommand suggests what may have been meant.
func (s *session) unknownCommand(name string) error {
	all := s.cat.names(func(*Command) bool { return true }, true)
	var near []string
	best := max(2, len(name)/4)
	for _, n := range all {
		switch d := distance(name, n); {
		case d < best:
			best, near = d, []string{n}
		case d == best:
			near = append(near, n)
		}
	}
	if len(near) == 0 {
		for _, n := range all {
			if strings.Contains(n, name) {
				near = append(near, n)
			}
		}
	}
	if len(near) == 0 || len(near) > 12 {
		return usage("unknown command: %s", name)
	}
	return usage("unknown command: %s; did you mean %s?", name, strings.Join(near, ", "))
}

// distance counts the letters to change, add or take away between two words.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		last := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := last
			if a[i] != b[j] {
				cost = 1 + min(last, row[j], row[j+1])
			}
			last, row[j+1] = row[j+1], cost
		}
	}
	return row[len(b)]
}
