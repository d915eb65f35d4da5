package wiretest

import (
	"errors"
	"slices"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Insert puts a record into the server's database.
func Insert[T any, P api.RecordPtr[T]](s *Server, r *T) (ref api.Ref[T]) {
	s.T.Helper()
	s.update(func(tx *db.Tx) error { ref = db.Insert[T, P](tx, r); return nil })
	return ref
}

// Get is a record as it is now.
func Get[T any, P api.RecordPtr[T]](s *Server, ref api.Ref[T]) *T {
	s.T.Helper()
	r, err := db.Get[T, P](s.DB.Snapshot(), ref)
	if err != nil {
		s.T.Fatal(err)
	}
	return r
}

// Refused fails the test unless the call is answered with this error.
func (s *Server) Refused(want *api.Error, method string, args ...any) {
	s.T.Helper()
	_, err := s.Call(method, args...)
	var e *api.Error
	if !errors.As(err, &e) || e.Code != want.Code || !slices.Equal(e.Params, want.Params) {
		s.T.Errorf("%s(%v): got %v, want %v", method, args, err, want)
	}
}

// Until waits for a change of the database that makes f true, five seconds at
// most.
func (s *Server) Until(what string, f func() bool) {
	s.T.Helper()
	w := s.DB.Watch()
	defer w.Close()
	limit := time.After(5 * time.Second)
	for !f() {
		select {
		case <-w.C():
			w.Changes()
		case <-limit:
			s.T.Fatalf("still not: %s", what)
		}
	}
}
