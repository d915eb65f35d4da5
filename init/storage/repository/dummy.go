package repository

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"

	"cairn/init/hostd/client"
)

// dummyDriver keeps names and sizes and no bytes: it drives the API at a scale
// that no disk of a test has.
type dummyDriver struct{}

// dummySize is the made-up medium's without Config[client.DummyConfigKey].
const dummySize = 1 << 40

func (dummyDriver) check(config map[string]string) error {
	if err := onlyKeys(config, client.DummyConfigKey); err != nil {
		return err
	}
	_, err := dummyBytes(config)
	return err
}

func dummyBytes(config map[string]string) (int64, error) {
	text, ok := config[client.DummyConfigKey]
	if !ok {
		return dummySize, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n <= 0 {
		return 0, Fail(client.CodeBadRequest, "size %q is not a number of bytes", text)
	}
	return n, nil
}

func (d dummyDriver) probe(_ context.Context, config map[string]string) ([]client.Repository, error) {
	return nil, d.check(config)
}

func (dummyDriver) format(context.Context, string, map[string]string) error { return nil }
func (dummyDriver) erase(context.Context, string, map[string]string) error  { return nil }

func (dummyDriver) attach(_ context.Context, _ string, config map[string]string) (store, string, error) {
	size, err := dummyBytes(config)
	return &dummy{size: size, volumes: map[string]client.Volume{}}, "", err
}

type dummy struct {
	size int64

	mu      sync.Mutex
	volumes map[string]client.Volume
	used    int64
}

func (*dummy) path() string                 { return "" }
func (*dummy) readOnly() bool               { return false }
func (*dummy) detach(context.Context) error { return nil }

func (d *dummy) space(context.Context) (space, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return space{d.size, d.used, d.size - d.used}, nil
}

func (d *dummy) list(context.Context) ([]client.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Collect(maps.Values(d.volumes)), nil
}

func (d *dummy) volume(_ context.Context, name string) (client.Volume, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	v, ok := d.volumes[name]
	if !ok {
		return v, Fail(client.CodeNotFound, "volume %s is not there", name)
	}
	return v, nil
}

// put sets a volume and counts what it takes; a volume of size −1 is removed.
func (d *dummy) put(v client.Volume) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	used := d.used - d.volumes[v.Name].Used
	if v.VirtualSize < 0 {
		d.used = used
		delete(d.volumes, v.Name)
		return nil
	}
	if v.Used > d.size-used {
		return Fail(client.CodeNoSpace, "volume %s takes %d bytes, and %d are free", v.Name, v.Used, d.size-used)
	}
	d.volumes[v.Name], d.used = v, used+v.Used
	return nil
}

func (d *dummy) create(_ context.Context, name string, s client.VolumeSpec) error {
	return d.put(client.Volume{Name: name, Path: "/dev/null", Format: s.Format, VirtualSize: s.Size, Used: s.Size, Backing: s.Backing, Note: s.Note})
}

func (d *dummy) remove(_ context.Context, v client.Volume) error {
	v.VirtualSize = -1
	return d.put(v)
}

func (d *dummy) resize(_ context.Context, v client.Volume, size int64) error {
	v.VirtualSize, v.Used = size, size
	return d.put(v)
}

func (*dummy) grow(context.Context, client.Volume, int64) error { return nil }

func (d *dummy) rebase(_ context.Context, v, backing client.Volume) error {
	v.Backing = backing.Name
	return d.put(v)
}

func (d *dummy) note(_ context.Context, v client.Volume, note string) error {
	v.Note = note
	return d.put(v)
}

func (d *dummy) commit(ctx context.Context, v, backing client.Volume, progress func(float64)) error {
	progress(1)
	return d.resize(ctx, backing, max(v.VirtualSize, backing.VirtualSize))
}

func (d *dummy) receive(ctx context.Context, name string, spec client.VolumeSpec, _ func(string) error) error {
	return d.create(ctx, name, spec)
}

func (*dummy) activate(context.Context, client.Volume) error             { return nil }
func (*dummy) deactivate(context.Context, client.Volume, []string) error { return nil }

func (*dummy) check(context.Context, client.Volume) (c client.Check, err error) { return c, nil }

func (*dummy) read(context.Context, client.Volume) (string, func(), error) {
	return "", nil, Fail(client.CodeUnsupported, "a dummy volume has no bytes to copy")
}
