//go:build lab

package killtest

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"

	"cairn/toolstack/db"
)

// journal is an engine that appends every batch to a file: what a process that is
// killed has committed is there for the next one.
type journal struct {
	*db.Memory
	file *os.File
	step func() // before and after each commit
}

func openJournal(path string, step func()) (*journal, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, err
	}
	j := &journal{db.NewMemory(), f, step}
	dec := json.NewDecoder(f)
	end := int64(0)
	for {
		var b db.Batch
		err := dec.Decode(&b)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) { // the last one may be cut short
			break
		}
		if err != nil {
			return nil, err
		}
		if err := j.Memory.Commit(context.Background(), b); err != nil {
			return nil, err
		}
		end = dec.InputOffset()
	}
	if err := f.Truncate(end); err != nil {
		return nil, err
	}
	_, err = f.Seek(end, io.SeekStart)
	return j, err
}

// Commit implements db.Engine.
func (j *journal) Commit(ctx context.Context, b db.Batch) error {
	text, err := json.Marshal(b)
	if err != nil {
		return err
	}
	j.step()
	if _, err := j.file.Write(append(text, '\n')); err != nil {
		return err
	}
	err = j.Memory.Commit(ctx, b)
	j.step()
	return err
}

// Close implements db.Engine.
func (j *journal) Close() error { return j.file.Close() }
