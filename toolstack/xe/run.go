package xe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"

	"cairn/toolstack/client"
)

// API is the part of a XenAPI session that commands use.
type API interface {
	Call(ctx context.Context, method string, out any, args ...any) error
	Console(ctx context.Context, ref string) (io.ReadWriteCloser, error)
}

// Config is the surroundings of a run.
type Config struct {
	Args    []string
	Stdin   io.Reader
	Stdout  io.Writer
	Stderr  io.Writer
	Getenv  func(string) string
	Connect func(context.Context, Invocation) (API, func(), error) // nil: over the network
}

// Exit statuses: 1 for a command the host refused or that failed, 2 for a
// command line that cannot be understood.
const (
	exitFailed = 1
	exitUsage  = 2
)

// session is one command at work.
type session struct {
	Invocation
	api    API
	cat    *Catalogue
	in     io.Reader
	out    io.Writer
	uuids  map[string]string // reference → uuid, of those already asked for
	nested map[string]map[string]any
}

// Run executes one command line and returns the exit status.
func Run(ctx context.Context, cfg Config) int {
	err := run(ctx, cfg)
	var bad *UsageError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &bad):
		fmt.Fprintf(cfg.Stderr, "xe: %s\n", bad.Reason)
		return exitUsage
	default:
		fmt.Fprint(cfg.Stderr, failure(err))
		return exitFailed
	}
}

// failure words an error: an answer of the host by code and parameters, one a
// line, as scripts expect it; anything else in one line.
func failure(err error) string {
	var e *client.Error
	if !errors.As(err, &e) {
		return fmt.Sprintf("xe: %v\n", err)
	}
	return fmt.Sprintf("Error code: %s\nError parameters: %s\n", e.Code, strings.Join(e.Params, ", "))
}

func run(ctx context.Context, cfg Config) error {
	args := append(strings.Fields(cfg.Getenv("XE_EXTRA_ARGS")), cfg.Args...)
	inv, err := Parse(args)
	if err != nil {
		return err
	}
	s := &session{Invocation: inv, cat: load(), in: cfg.Stdin, out: cfg.Stdout,
		uuids: map[string]string{}, nested: map[string]map[string]any{}}
	if inv.Help || inv.Command == "help" {
		return s.help()
	}
	command, err := s.command()
	if err != nil {
		return err
	}
	connect := cfg.Connect
	if connect == nil {
		connect = dial
	}
	api, done, err := connect(ctx, inv)
	if err != nil {
		return err
	}
	defer done()
	s.api = api
	return command(ctx)
}

// command finds the code of the command and checks its required parameters.
func (s *session) command() (func(context.Context) error, error) {
	if class, ok := s.cat.generic[s.Command]; ok {
		return s.generic(class)
	}
	known, ok := s.cat.explicit[s.Command]
	if !ok {
		return nil, usage("unknown command %q; try: xe help", s.Command)
	}
	code, ok := commands[s.Command]
	if !ok {
		return nil, fmt.Errorf("%s: %w", s.Command, &client.Error{Code: "NOT_IMPLEMENTED", Params: []string{s.Command}})
	}
	for _, name := range known.Required {
		if _, ok := s.Params.Get(name); !ok {
			return nil, usage("%s: required parameter not found: %s", s.Command, name)
		}
	}
	return func(ctx context.Context) error { return code(s, ctx) }, nil
}

// dial connects over the network. Without -s it is the local host.
func dial(ctx context.Context, inv Invocation) (API, func(), error) {
	server := inv.Server
	if server == "" {
		server = "localhost"
	}
	c, err := client.Dial(ctx, client.Config{
		Addr:     net.JoinHostPort(server, strconv.Itoa(inv.Port)),
		Username: inv.Username, Password: inv.Password, Originator: "xe",
	})
	if err != nil {
		return nil, nil, err
	}
	return c, func() { _ = c.Close(context.WithoutCancel(ctx)) }, nil
}

// help lists the commands, or says what one takes.
func (s *session) help() error {
	if s.Command != "help" || len(s.Params) == 0 {
		fmt.Fprintln(s.out, "Usage: xe <command> [-s server] [-p port] [-u user] [-pw password] [--minimal] [name=value]…")
		fmt.Fprintln(s.out, "\nCommands:")
		for _, name := range s.cat.names(s.All) {
			fmt.Fprintln(s.out, "  "+name)
		}
		return nil
	}
	for _, p := range s.Params {
		if err := s.helpOn(p.Name); err != nil {
			return err
		}
	}
	return nil
}

func (s *session) helpOn(name string) error {
	if class, ok := s.cat.generic[name]; ok {
		fmt.Fprintf(s.out, "%s: on records of class %s\n  fields: ", name, class.API)
		for i, f := range class.Fields {
			if i > 0 {
				fmt.Fprint(s.out, ", ")
			}
			fmt.Fprint(s.out, f.Name)
		}
		fmt.Fprintln(s.out)
		return nil
	}
	c, ok := s.cat.explicit[name]
	if !ok {
		return usage("unknown command %q", name)
	}
	fmt.Fprintf(s.out, "%s\n  required: %s\n  optional: %s\n", name, strings.Join(c.Required, ", "), strings.Join(c.Optional, ", "))
	if c.flag("Vm_selectors") {
		fmt.Fprintln(s.out, "  selects VMs: uuid=, vm=<name or uuid>, or any field of vm-list; --multiple for several")
	}
	if c.flag("Host_selectors") {
		fmt.Fprintln(s.out, "  selects hosts: uuid=, host=<name or uuid>, or any field of host-list; --multiple for several")
	}
	return nil
}
