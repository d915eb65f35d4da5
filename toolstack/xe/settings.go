package xe

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Settings say which host to talk to, as whom, and how to trust it. They come
// from ~/.xe, then XE_EXTRA_ARGS, then the command line; the last one counts.
type Settings struct {
	Server       string
	Port         int
	Username     string
	Password     string
	PasswordFile string
	CAFile       string // certificates to trust, PEM
	Fingerprint  string // SHA-256 of the certificate to trust
	NoVerify     bool   // trust whoever answers
	Debug        bool   // say on stderr what is called

	hasPassword bool
}

func defaults() Settings { return Settings{Port: 443, Username: "root"} }

// valued are the switches that take the next word, and the settings they give.
var valued = map[string]string{
	"-s": "server", "-h": "server", "-p": "port", "-u": "username", "-pw": "password", "-pwf": "passwordfile",
	"--ca-file": "ca-file", "--fingerprint": "fingerprint",
}

// settingNames are the names that are settings wherever they stand.
var settingNames = []string{
	"server", "port", "username", "password", "passwordfile", "ca-file", "fingerprint", "no-ssl-verify", "nossl", "debug", "trace",
}

func isSetting(name string) bool {
	for _, n := range settingNames {
		if n == name {
			return true
		}
	}
	return false
}

// set gives one setting its value.
func (s *Settings) set(name, value string) error {
	switch name {
	case "server":
		s.Server = value
	case "port":
		port, err := strconv.Atoi(value)
		if err != nil || port < 1 || port > 65535 {
			return usage("%q is not a port number", value)
		}
		s.Port = port
	case "username":
		s.Username = value
	case "password":
		s.Password, s.hasPassword = value, true
	case "passwordfile":
		s.PasswordFile = value
	case "ca-file":
		s.CAFile = value
	case "fingerprint":
		s.Fingerprint = value
	default:
		return s.setSwitch(name, value)
	}
	return nil
}

func (s *Settings) setSwitch(name, value string) error {
	on, ok := truth(value)
	switch {
	case !ok:
		return usage("%s is true or false, not %q", name, value)
	case name == "no-ssl-verify":
		s.NoVerify = on
	case name == "nossl" && on:
		return usage("nossl: hosts answer over TLS only")
	case name == "debug" || name == "trace":
		s.Debug = on
	}
	return nil
}

// settle reads the whole command line with what comes before it.
func settle(cfg Config) (Invocation, error) {
	early, err := rcLines(cfg)
	if err != nil {
		return Invocation{}, err
	}
	known, params := defaults(), Params(nil)
	for _, args := range [][]string{early, extraArgs(cfg.Getenv("XE_EXTRA_ARGS"))} {
		inv, err := parse(known, args)
		if err != nil {
			return inv, err
		}
		known, params = inv.Settings, append(inv.Params, params...)
	}
	inv, err := parse(known, cfg.Args)
	inv.Params = append(inv.Params, params...)
	if err != nil || inv.PasswordFile == "" {
		return inv, err
	}
	return inv, inv.readPassword()
}

// rcLines reads ~/.xe: one name=value a line. It must not be readable by
// others when it holds a password.
func rcLines(cfg Config) ([]string, error) {
	home := cfg.Getenv("HOME")
	if home == "" {
		return nil, nil
	}
	name := filepath.Join(home, ".xe")
	text, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("settings: %w", err)
	}
	var lines []string
	for n, l := range strings.Split(string(text), "\n") {
		l = strings.TrimSpace(l)
		if l == "" || strings.HasPrefix(l, "#") {
			continue
		}
		if !strings.Contains(l, "=") {
			return nil, usage("%s line %d: want name=value", name, n+1)
		}
		if strings.HasPrefix(l, "password=") {
			warnReadable(cfg, name)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

// warnReadable says so when a file with a password can be read by others.
func warnReadable(cfg Config, name string) {
	if info, err := os.Stat(name); err == nil && info.Mode().Perm()&0o077 != 0 {
		fmt.Fprintf(cfg.Stderr, "xe: warning: others can read the password in %s\n", name)
	}
}

// extraArgs splits XE_EXTRA_ARGS at commas; a backslash takes the next
// character as it is.
func extraArgs(text string) []string {
	var words []string
	var word strings.Builder
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\\' && i+1 < len(text):
			i++
			word.WriteByte(text[i])
		case c == ',':
			words = append(words, word.String())
			word.Reset()
		default:
			word.WriteByte(c)
		}
	}
	words = append(words, word.String())
	kept := words[:0]
	for _, w := range words {
		if w != "" {
			kept = append(kept, w)
		}
	}
	return kept
}

// readPassword reads the password file: the user on the first line, the
// password on the second.
func (s *Settings) readPassword() error {
	f, err := os.Open(s.PasswordFile)
	if err != nil {
		return fmt.Errorf("password file: %w", err)
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	var text []string
	for len(text) < 2 && lines.Scan() {
		text = append(text, strings.TrimSuffix(lines.Text(), "\r"))
	}
	if err := lines.Err(); err != nil {
		return fmt.Errorf("password file: %w", err)
	}
	if len(text) < 2 {
		return usage("password file %s: want the user on the first line and the password on the second", s.PasswordFile)
	}
	s.Username, s.Password, s.hasPassword = text[0], text[1], true
	return nil
}
