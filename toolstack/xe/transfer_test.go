package xe

import (
	"errors"
	"fmt"
	"testing"

	"cairn/toolstack/client"
)

// TestStreamErrors: what a stream answers reads as if a message had answered it.
func TestStreamErrors(t *testing.T) {
	other := errors.New("no route to host")
	for _, c := range []struct {
		err  error
		want string
	}{
		{&client.StatusError{Code: 404, Text: "404 page not found"}, "NOT_IMPLEMENTED [GET /export]"},
		{&client.StatusError{Code: 405, Text: "method not allowed"}, "NOT_IMPLEMENTED [GET /export]"},
		{&client.StatusError{Code: 404, Text: "HANDLE_INVALID [VM, OpaqueRef:x]"}, "HANDLE_INVALID [VM OpaqueRef:x]"},
		{&client.StatusError{Code: 500, Text: "IMPORT_ERROR_PREMATURE_EOF"}, "IMPORT_ERROR_PREMATURE_EOF []"},
	} {
		var e *client.Error
		if err := streamError("GET", "/export", c.err); !errors.As(err, &e) || fmt.Sprint(e.Code, " ", e.Params) != c.want {
			t.Errorf("%v: %v", c.err, err)
		}
	}
	for _, err := range []error{nil, other, &client.StatusError{Code: 502, Text: "Bad Gateway"}} {
		if got := streamError("GET", "/export", err); got != err {
			t.Errorf("%v became %v", err, got)
		}
	}
}
