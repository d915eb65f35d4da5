package life

import "context"

// Until waits for something to hold, which is looked at again after each change of
// objects of some classes; at times also without one, as for what is not an object.
func (a API) Until(ctx context.Context, what string, classes []string, holds func() bool) {
	a.T.Helper()
	var batch struct {
		Token string `json:"token"`
	}
	for !holds() {
		if err := a.Client.Call(ctx, "event.from", &batch, classes, batch.Token, 3.5); err != nil {
			a.T.Fatalf("waiting for %s: %v", what, err)
		}
	}
}

// Bytes is a call that answers a number.
func (a API) Bytes(ctx context.Context, method string, args ...any) (n int64) {
	a.T.Helper()
	a.Call(ctx, &n, method, args...)
	return n
}

// Null is the reference that means none.
const Null = "OpaqueRef:NULL"

// DefaultSR waits for the pool's repository for new disks, which a host that is
// started for the first time makes soon after.
func (a API) DefaultSR(ctx context.Context) (sr string) {
	a.T.Helper()
	pool := a.First(ctx, "pool.get_all")
	a.Until(ctx, "a default repository", []string{"pool"}, func() bool {
		sr = a.Ref(ctx, "pool.get_default_SR", pool)
		return sr != Null
	})
	return sr
}

// Alerts counts those of a name about an object.
func (a API) Alerts(ctx context.Context, name, uuid string) (n int) {
	a.T.Helper()
	var all map[string]struct {
		Name string
		UUID string `json:"obj_uuid"`
	}
	must(a.T, a.Client.Call(ctx, "message.get_all_records", &all))
	for _, m := range all {
		if m.Name == name && m.UUID == uuid {
			n++
		}
	}
	return n
}
