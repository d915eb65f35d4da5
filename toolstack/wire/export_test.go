package wire

import "time"

// SetRests bounds how long, and of how many clients, what is left of a body is read. It is
// for a server that serves nobody yet.
func (s *Server) SetRests(limit time.Duration, most int) {
	s.rests.limit, s.rests.slots = limit, make(chan struct{}, most)
}
