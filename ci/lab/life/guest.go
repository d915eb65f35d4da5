package life

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"

	"cairn/ci/lab"
	"cairn/ci/lab/demo"
)

// Keyboard is a guest's serial console with both directions.
type Keyboard struct {
	*lab.Console
	keys io.Writer
}

// Sit attaches to a guest's console until the test ends.
func Sit(ctx context.Context, t testing.TB, g *demo.Guest) Keyboard {
	t.Helper()
	console, keys, err := g.Console(ctx, t.Output(), nil)
	must(t, err)
	t.Cleanup(func() { keys.Close() })
	return Keyboard{console, keys}
}

// Up starts a guest and waits until it says it is there.
func Up(ctx context.Context, t testing.TB, g *demo.Guest) Keyboard {
	t.Helper()
	must(t, g.Start(ctx))
	k := Sit(ctx, t, g)
	_, err := k.Text(ctx, demo.Greeting)
	must(t, err)
	return k
}

// Ask types a command of the guest's agent and returns the lines of its answer.
func (k Keyboard) Ask(ctx context.Context, t testing.TB, format string, args ...any) []string {
	t.Helper()
	return k.Type(t, format, args...)(ctx)
}

// Type types a command; what it returns waits for the answer. Meanwhile nothing
// else may be asked.
func (k Keyboard) Type(t testing.TB, format string, args ...any) (answer func(context.Context) []string) {
	t.Helper()
	wait, err := k.send(fmt.Sprintf(format, args...))
	must(t, err)
	return func(ctx context.Context) []string {
		t.Helper()
		lines, err := wait(ctx)
		must(t, err)
		return lines
	}
}

// Tell is Ask for any goroutine.
func (k Keyboard) Tell(ctx context.Context, format string, args ...any) ([]string, error) {
	wait, err := k.send(fmt.Sprintf(format, args...))
	if err != nil {
		return nil, err
	}
	return wait(ctx)
}

func (k Keyboard) send(command string) (wait func(context.Context) ([]string, error), err error) {
	name, _, _ := strings.Cut(command, " ")
	k.Mark()
	before := len(k.Lines())
	if _, err := io.WriteString(k.keys, command+"\n"); err != nil {
		return nil, err
	}
	return func(ctx context.Context) (lines []string, err error) {
		for ended := false; !ended; {
			l, err := k.Text(ctx, name+" ")
			if err != nil {
				return nil, err
			}
			text := strings.TrimSpace(l.Text)
			if strings.HasPrefix(text, name+" failed err=") {
				return nil, fmt.Errorf("%s: %s", command, text)
			}
			if ended = strings.HasPrefix(text, name+" ok ms="); !ended {
				k.MarkAfter(l)
			}
		}
		for _, l := range k.Lines()[before:] {
			lines = append(lines, strings.TrimSpace(l.Text))
		}
		return lines, nil
	}, nil
}

// Word finds key=value in an answer's lines of a kind ("sum").
func Word(t testing.TB, answer []string, kind, key string) string {
	t.Helper()
	for _, l := range answer {
		if !strings.HasPrefix(l, kind+" ") {
			continue
		}
		for _, w := range strings.Fields(l) {
			if v, ok := strings.CutPrefix(w, key+"="); ok {
				return v
			}
		}
	}
	t.Fatalf("no %s of %s in %q", key, kind, answer)
	return ""
}

// Sum is the checksum of a whole disk as the guest reads it.
func (k Keyboard) Sum(ctx context.Context, t testing.TB, disk string) string {
	t.Helper()
	return Word(t, k.Ask(ctx, t, "sum %s", disk), "sum", "sha256")
}

// Fill writes a pattern to a disk and returns the checksum of all of it.
func (k Keyboard) Fill(ctx context.Context, t testing.TB, disk string, seed, mib int) string {
	t.Helper()
	k.Ask(ctx, t, "fill %s %d %d", disk, seed, mib)
	return k.Sum(ctx, t, disk)
}

// ReadsDemoCD asserts that the image's CD is in the guest's drive.
func ReadsDemoCD(ctx context.Context, t testing.TB, k Keyboard) {
	t.Helper()
	answer := strings.Join(k.Ask(ctx, t, "mount-cd"), "\n")
	if !strings.Contains(strings.ToUpper(answer), "EFI.IMG") {
		t.Errorf("the CD holds\n%s", answer)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
