package device_test

import (
	"context"

	"cairn/toolstack/hypervisor"
)

// doing is a hypervisor that does all that changes a domain by way of a function.
type doing struct {
	*hypervisor.Fake
	do func(func() error) error
}

func (h doing) Start(ctx context.Context, spec hypervisor.Spec, paused bool) error {
	return h.do(func() error { return h.Fake.Start(ctx, spec, paused) })
}

func (h doing) Pause(ctx context.Context, uuid string) error {
	return h.do(func() error { return h.Fake.Pause(ctx, uuid) })
}

func (h doing) Resume(ctx context.Context, uuid string) error {
	return h.do(func() error { return h.Fake.Resume(ctx, uuid) })
}

func (h doing) Shutdown(ctx context.Context, uuid string) error {
	return h.do(func() error { return h.Fake.Shutdown(ctx, uuid) })
}

func (h doing) Destroy(ctx context.Context, uuid string) error {
	return h.do(func() error { return h.Fake.Destroy(ctx, uuid) })
}

func (h doing) AttachDisk(ctx context.Context, uuid string, d hypervisor.Disk) error {
	return h.do(func() error { return h.Fake.AttachDisk(ctx, uuid, d) })
}

func (h doing) DetachDisk(ctx context.Context, uuid, id string) error {
	return h.do(func() error { return h.Fake.DetachDisk(ctx, uuid, id) })
}

func (h doing) ChangeMedia(ctx context.Context, uuid, id string, s *hypervisor.Source) error {
	return h.do(func() error { return h.Fake.ChangeMedia(ctx, uuid, id, s) })
}

func (h doing) AttachNIC(ctx context.Context, uuid string, n hypervisor.NIC) error {
	return h.do(func() error { return h.Fake.AttachNIC(ctx, uuid, n) })
}

func (h doing) DetachNIC(ctx context.Context, uuid, id string) error {
	return h.do(func() error { return h.Fake.DetachNIC(ctx, uuid, id) })
}

func (h doing) UpdateNIC(ctx context.Context, uuid string, n hypervisor.NIC) error {
	return h.do(func() error { return h.Fake.UpdateNIC(ctx, uuid, n) })
}

func (h doing) SetVCPUs(ctx context.Context, uuid string, n int) error {
	return h.do(func() error { return h.Fake.SetVCPUs(ctx, uuid, n) })
}

func (h doing) Snapshot(ctx context.Context, uuid string, o []hypervisor.Overlay) error {
	return h.do(func() error { return h.Fake.Snapshot(ctx, uuid, o) })
}
