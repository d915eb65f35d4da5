package pump

import (
	"errors"
	"os"
)

// logFile is a file that is renamed to .1 when it is full. A nil *logFile is
// one that was never needed.
type logFile struct {
	path  string
	limit int64
	f     *os.File
	size  int64
}

func (l *logFile) write(line []byte) error {
	if l.f != nil && l.size+int64(len(line)) > l.limit {
		if err := l.rotate(); err != nil {
			return err
		}
	}
	if l.f == nil {
		if err := l.open(); err != nil {
			return err
		}
	}
	n, err := l.f.Write(line)
	l.size += int64(n)
	return err
}

func (l *logFile) open() error {
	f, err := os.OpenFile(l.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	l.f, l.size = f, info.Size()
	return nil
}

func (l *logFile) rotate() error {
	l.close()
	return os.Rename(l.path, l.path+".1")
}

func (l *logFile) close() {
	if l == nil || l.f == nil {
		return
	}
	// The lines are lost or written either way.
	_ = l.f.Close()
	l.f = nil
}
