package xe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
)

// API is the part of a session on a host that commands use.
type API interface {
	Call(ctx context.Context, method string, out any, args ...any) error
	Console(ctx context.Context, ref string) (io.ReadWriteCloser, error)
	Get(ctx context.Context, path string, query url.Values) (io.ReadCloser, error)
	PutFile(ctx context.Context, path string, query url.Values, file string) error
	Session() string
}

// Config is the surroundings of a run.
type Config struct {
	Args     []string
	Stdin    io.Reader
	Stdout   io.Writer
	Stderr   io.Writer
	Getenv   func(string) string
	Terminal bool   // stderr is one: show progress
	Socket   string // of the host the command runs on, if it runs on one
	// Connect logs in; nil: over the network.
	Connect func(ctx context.Context, s Settings, local bool) (API, func(), error)
}

// exitFailed is the status of everything that did not work, as administrators'
// scripts expect it: a refused command and a misspelt one alike.
const exitFailed = 1

// session is one command at work.
type session struct {
	Invocation
	cfg    Config
	api    API
	cat    *Catalogue
	in     io.Reader
	out    *printer
	errOut io.Writer
	store  store
	drawn  bool // a progress bar stands on the terminal
	close  func()
}

// Run executes one command line and returns the exit status.
func Run(ctx context.Context, cfg Config) int {
	s := &session{cfg: cfg, cat: load(), in: cfg.Stdin, errOut: cfg.Stderr, store: newStore(), close: func() {}}
	defer func() { s.close() }() // after the report, which asks what references lead to
	err := s.run(ctx)
	if err == nil {
		return 0
	}
	s.report(ctx, err)
	return exitFailed
}

func (s *session) run(ctx context.Context) error {
	if len(s.cfg.Args) > 0 && s.cfg.Args[0] == "__complete" {
		return s.complete(ctx)
	}
	inv, err := settle(s.cfg)
	if err != nil {
		return err
	}
	s.Invocation = inv
	s.out = &printer{w: s.cfg.Stdout, minimal: inv.Params.True("minimal")}
	switch {
	case inv.Command == "" && !inv.Help:
		fmt.Fprint(s.errOut, usageText)
		return nil
	case inv.Help || inv.Command == "help":
		return errors.Join(s.help(), s.out.flush())
	case inv.Command == "completion":
		return s.completion()
	}
	command, local, err := s.command()
	if err != nil {
		return err
	}
	if s.close, err = s.connect(ctx, local); err != nil {
		s.close = func() {}
		return err
	}
	if err := command(ctx); err != nil {
		return err
	}
	return s.out.flush()
}

// command finds the code of the command and checks what can be checked before
// the host is asked. local commands need only the one host, not its pool.
func (s *session) command() (run func(context.Context) error, local bool, err error) {
	if class, ok := s.cat.generic[s.Command]; ok {
		run, err = s.generic(class)
		return run, false, err
	}
	cmd, ok := s.cat.explicit[s.Command]
	if !ok {
		return nil, false, s.unknownCommand(s.Command)
	}
	run, err = s.explicit(cmd)
	return run, cmd.flag("Local"), err
}
