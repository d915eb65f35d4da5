package repository

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"

	"cairn/init/hostd/client"
	"cairn/init/storage/media"
	"cairn/init/storage/tool"
)

// statuses are the HTTP statuses of the codes used here.
var statuses = map[string]int{
	client.CodeBadRequest:  http.StatusBadRequest,
	client.CodeNotFound:    http.StatusNotFound,
	client.CodeInUse:       http.StatusConflict,
	client.CodeConflict:    http.StatusConflict,
	client.CodeNotAttached: http.StatusConflict,
	client.CodeNoSpace:     http.StatusInsufficientStorage,
	client.CodeUnsupported: http.StatusNotImplemented,
	client.CodeDamaged:     http.StatusUnprocessableEntity,
}

// Fail is an error with a code that a client may branch on.
func Fail(code, format string, args ...any) *client.Error {
	status, ok := statuses[code]
	if !ok {
		status = http.StatusInternalServerError
	}
	return &client.Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

// codes of what programs and the kernel say. QEMU's own texts have not changed in
// years; a lab test watches them.
func code(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT), tool.Says(err, "No space left on device"):
		return client.CodeNoSpace
	case errors.Is(err, syscall.EBUSY), tool.Says(err, "Failed to get "):
		return client.CodeInUse
	case errors.Is(err, syscall.EFBIG), tool.Says(err, "File too large"), errors.Is(err, media.ErrNoDisk):
		return client.CodeBadRequest
	}
	return ""
}

// about names the object of an error, and its code where there is one for it.
func about(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	var e *client.Error
	if errors.As(err, &e) {
		return err
	}
	what := fmt.Sprintf(format, args...)
	if c := code(err); c != "" {
		return Fail(c, "%s: %v", what, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

// is reports whether an error has a code.
func is(err error, code string) bool {
	var e *client.Error
	return errors.As(err, &e) && e.Code == code
}

// inUse refuses a medium and names what was found on it.
func inUse(path string, found []string) error {
	return Fail(client.CodeInUse, "%s holds %s", path, strings.Join(found, ", "))
}
