package qemuimg

import (
	"bytes"
	"errors"
	"strconv"

	"cairn/init/storage/tool"
)

// maxPending bounds what Progress keeps of a line that has no end.
const maxPending = 256

// Progress returns a reader of what qemu-img -p prints, "    (12.34/100%)" and a
// carriage return; it tells report fractions of 1. A nil report is fine.
func Progress(report func(float64)) func([]byte) {
	var pending []byte
	return func(p []byte) {
		pending = append(pending, p...)
		for {
			end := bytes.IndexAny(pending, "\r\n")
			if end < 0 {
				break
			}
			if f, ok := parseProgress(pending[:end]); ok && report != nil {
				report(f)
			}
			pending = pending[end+1:]
		}
		if len(pending) > maxPending {
			pending = nil
		}
	}
}

func parseProgress(line []byte) (float64, bool) {
	text, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("("))
	number, _, slash := bytes.Cut(text, []byte("/100%)"))
	if !ok || !slash {
		return 0, false
	}
	f, err := strconv.ParseFloat(string(number), 64)
	if err != nil || !(f >= 0 && f <= 100) {
		return 0, false
	}
	return f / 100, true
}

func asFailure(err error, f **tool.Failure) bool { return errors.As(err, f) }
