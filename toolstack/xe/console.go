package xe

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// escape is Ctrl-], which leaves the console as it leaves telnet.
const escape = 0x1d

// console joins the terminal to the serial console of one VM until the VM
// stops, the user types Ctrl-], or a signal ends the command. The end of input
// leaves it open: what was piped in has answers to come.
func (s *session) console(ctx context.Context) error {
	list, err := s.selected(ctx, "vm")
	if err != nil {
		return err
	}
	if len(list) != 1 {
		return usage("console: one VM at a time")
	}
	if state := list[0].text("power_state"); state != "Running" && state != "Paused" {
		return fmt.Errorf("%s is %s: it has no console now", list[0].named(), strings.ToLower(state))
	}
	ref, err := s.terminal(ctx, list[0])
	if err != nil {
		return err
	}
	stream, err := s.api.Console(ctx, ref)
	if err != nil {
		return err
	}
	defer stream.Close()
	defer context.AfterFunc(ctx, func() { stream.Close() })()
	restore, err := s.rawTerminal()
	if err != nil {
		return err
	}
	defer restore()
	go func() {
		if escaped(stream, s.in) {
			stream.Close()
		}
	}()
	// However the stream ends, by the user, the VM or the host, the console is
	// simply over.
	_, _ = io.Copy(s.out.w, stream)
	return ctx.Err()
}

// terminal is the reference of a VM's serial console: the VM itself would stand for
// its screen. A host that lists no consoles is left to decide.
func (s *session) terminal(ctx context.Context, vm record) (string, error) {
	refs, _ := vm.values["consoles"].([]any)
	for _, ref := range refs {
		c, err := s.target(ctx, "console", fmt.Sprint(ref))
		if err != nil {
			return "", err
		}
		if c.text("protocol") == "vt100" {
			return fmt.Sprint(ref), nil
		}
	}
	if len(refs) > 0 {
		return "", fmt.Errorf("%s has a screen only: look at it with a VNC viewer", vm.named())
	}
	return vm.ref, nil
}

// rawTerminal puts a terminal into raw mode; anything else is left alone.
func (s *session) rawTerminal() (func(), error) {
	f, ok := s.in.(*os.File)
	if !ok || !term.IsTerminal(int(f.Fd())) {
		return func() {}, nil
	}
	fmt.Fprint(s.out.w, "Connected. Ctrl-] leaves the console.\r\n")
	old, err := term.MakeRaw(int(f.Fd()))
	if err != nil {
		return nil, err
	}
	return func() { _ = term.Restore(int(f.Fd()), old) }, nil
}

// escaped copies input until it ends or the escape is typed, and reports
// whether it was typed.
func escaped(w io.Writer, r io.Reader) bool {
	buf := make([]byte, 256)
	for {
		n, err := r.Read(buf)
		for i, b := range buf[:n] {
			if b == escape {
				_, _ = w.Write(buf[:i])
				return true
			}
		}
		if _, werr := w.Write(buf[:n]); err != nil || werr != nil {
			return false
		}
	}
}
