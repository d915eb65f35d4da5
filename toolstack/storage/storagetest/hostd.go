// Package storagetest is the storage verbs of a hostd in memory, for tests of the
// toolstack and for simulated hosts.
//
// Volumes are modelled truthfully: a volume holds the clusters that were written
// to it and reads through its backing, sizes and space are accounted for, an
// overlay keeps its data when it is committed, and nobody writes to a volume
// that others are based on. What a medium holds outlives a detach, so another
// Attach finds it. Nothing is kept when the process ends.
//
// All methods may be called by many goroutines.
package storagetest

import (
	"context"
	"maps"
	"net/http"
	"slices"
	"sync"

	"cairn/init/hostd/client"
)

// Cluster is the unit of content.
const Cluster = 64 << 10

// DefaultSize is that of a medium nobody has said anything about.
const DefaultSize = 1 << 40

// Hostd is the media of one host.
type Hostd struct {
	mu       sync.Mutex
	media    map[string]*medium // by type's device or location
	attached map[string]*medium // by repository
	fail     func(verb, sr, name string) error
	verbs    []string
	bytes    map[uint64][]byte // of values that clusters have, where they are not plain
	open     map[string]bool   // names of volumes that a hypervisor has open: it writes their size itself

	// Copying is called in the middle of each copy; nil: copies take no time.
	Copying func()
}

type medium struct {
	uuid, kind string
	config     map[string]string
	size       int64
	volumes    map[string]*volume
	logs       map[string][]byte
}

type volume struct {
	client.Volume
	clusters map[int64]uint64
	readers  int // to whom it is lent
	writers  int
	copies   int // that are being made of it
}

// New is a host whose media are blank and of DefaultSize.
func New() *Hostd {
	return &Hostd{media: map[string]*medium{}, attached: map[string]*medium{}}
}

// Fail makes f decide what goes wrong: it is called with every verb before the
// verb does anything, and for a commit also after each cluster ("commit-cluster")
// and for a rebase after it is done. An error ends the verb there. It must not
// call the Hostd.
func (h *Hostd) Fail(f func(verb, sr, name string) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fail = f
}

// Verbs are the changing verbs asked for since the last call.
func (h *Hostd) Verbs() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := h.verbs
	h.verbs = nil
	return v
}

// Open says whether a hypervisor has a volume open, so that its size is left to it.
func (h *Hostd) Open(name string, open bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.open == nil {
		h.open = map[string]bool{}
	}
	h.open[name] = open
}

// SetSize says how large the medium at a device or location is.
func (h *Hostd) SetSize(where string, size int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.medium(where).size = size
}

// AddFile puts an image that others made into a directory, or a device into the
// machine, for repositories of types iso and udev.
func (h *Hostd) AddFile(where, name string, size int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := client.Volume{Name: name, Path: where + "/" + name, Format: client.Raw, VirtualSize: size, Used: size, ReadOnly: true}
	h.medium(where).volumes[name] = &volume{Volume: v, clusters: map[int64]uint64{}}
}

// RemoveFile takes it away.
func (h *Hostd) RemoveFile(where, name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.medium(where).volumes, name)
}

// Adopt puts a repository on a medium as if it had been used for long: what a
// simulated pool begins with. Volumes have a name, a size and what they take.
func (h *Hostd) Adopt(sr string, c client.RepositoryConfig, size int64, volumes []client.Volume) error {
	at, err := where(c, sr)
	if err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	m := h.medium(at)
	m.uuid, m.kind, m.config, m.size = sr, c.Type, maps.Clone(c.Config), size
	for _, v := range volumes {
		v.Path, v.Block = "/run/sr-mount/"+sr+"/"+v.Name, m.thick()
		m.volumes[v.Name] = &volume{Volume: v, clusters: map[int64]uint64{}}
	}
	m.size = max(size, 2*m.used())
	return nil
}

// Forget is a restart of the host: nothing is attached or active any more.
func (h *Hostd) Forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.attached = map[string]*medium{}
	for _, m := range h.media {
		for _, v := range m.volumes {
			v.Active = false
		}
	}
}

func (h *Hostd) medium(where string) *medium {
	m := h.media[where]
	if m == nil {
		m = &medium{size: DefaultSize, volumes: map[string]*volume{}, logs: map[string][]byte{}}
		h.media[where] = m
	}
	return m
}

func refuse(code, message string) error {
	return &client.Error{Status: http.StatusConflict, Code: code, Message: message}
}

// enter begins a verb; the caller unlocks.
func (h *Hostd) enter(ctx context.Context, verb, sr, name string) error {
	h.mu.Lock()
	if err := ctx.Err(); err != nil {
		return err
	}
	h.verbs = append(h.verbs, verb+" "+name)
	return h.step(verb, sr, name)
}

func (h *Hostd) step(verb, sr, name string) error {
	if h.fail == nil {
		return nil
	}
	return h.fail(verb, sr, name)
}

// where is the place a config names.
func where(c client.RepositoryConfig, sr string) (string, error) {
	for _, key := range []string{"device", "location"} {
		if at := c.Config[key]; at != "" {
			return at, nil
		}
	}
	if c.Type == client.TypeDummy {
		return "dummy:" + sr, nil
	}
	return "", refuse(client.CodeBadRequest, "no device or location")
}

func found(c client.RepositoryConfig) bool {
	return c.Type == client.TypeISO || c.Type == client.TypeUdev
}

// Probe implements storage.Hostd.
func (h *Hostd) Probe(ctx context.Context, c client.RepositoryConfig) ([]client.Repository, error) {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "probe", "", ""); err != nil {
		return nil, err
	}
	all := []client.Repository{}
	at, err := where(c, "")
	if err != nil { // every blank medium is offered
		for _, at := range slices.Sorted(maps.Keys(h.media)) {
			if m := h.media[at]; m.uuid == "" {
				all = append(all, client.Repository{Type: c.Type, Config: map[string]string{"device": at}, Total: m.size, Free: m.size})
			}
		}
		return all, nil
	}
	m := h.medium(at)
	if m.uuid != "" && m.kind != c.Type {
		return nil, refuse(client.CodeInUse, at+" holds a repository of type "+m.kind)
	}
	r := m.repository()
	r.Type, r.Config, r.Path = c.Type, maps.Clone(c.Config), ""
	return append(all, r), nil
}

// FormatRepository implements storage.Hostd.
func (h *Hostd) FormatRepository(ctx context.Context, sr string, c client.RepositoryConfig) (client.Repository, error) {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "format", sr, ""); err != nil {
		return client.Repository{}, err
	}
	at, err := where(c, sr)
	if err != nil {
		return client.Repository{}, err
	}
	m := h.medium(at)
	if m.uuid != "" && m.uuid != sr {
		return client.Repository{}, refuse(client.CodeInUse, at+" holds repository "+m.uuid)
	}
	m.uuid, m.kind, m.config = sr, c.Type, maps.Clone(c.Config)
	return m.repository(), nil
}

// EraseRepository implements storage.Hostd.
func (h *Hostd) EraseRepository(ctx context.Context, sr string, c client.RepositoryConfig) error {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "erase", sr, ""); err != nil {
		return err
	}
	at, err := where(c, sr)
	if err != nil {
		return err
	}
	delete(h.attached, sr)
	if m := h.medium(at); m.uuid == sr {
		m.uuid = ""
		if !found(c) {
			m.volumes, m.logs = map[string]*volume{}, map[string][]byte{}
		}
	}
	return nil
}

// AttachRepository implements storage.Hostd.
func (h *Hostd) AttachRepository(ctx context.Context, sr string, c client.RepositoryConfig) (client.Repository, error) {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "attach", sr, ""); err != nil {
		return client.Repository{}, err
	}
	at, err := where(c, sr)
	if err != nil {
		return client.Repository{}, err
	}
	m := h.medium(at)
	if found(c) || c.Type == client.TypeDummy {
		m.uuid, m.kind, m.config = sr, c.Type, maps.Clone(c.Config)
	}
	if m.uuid != sr {
		return client.Repository{}, refuse(client.CodeNotFound, at+" does not hold repository "+sr)
	}
	if old := h.attached[sr]; old != nil && old != m {
		return client.Repository{}, refuse(client.CodeConflict, sr+" is attached from elsewhere")
	}
	h.attached[sr] = m
	return m.repository(), nil
}

// DetachRepository implements storage.Hostd.
func (h *Hostd) DetachRepository(ctx context.Context, sr string) error {
	defer h.mu.Unlock()
	if err := h.enter(ctx, "detach", sr, ""); err != nil {
		return err
	}
	m := h.attached[sr]
	if m == nil {
		return nil
	}
	for _, v := range m.volumes {
		if v.Active {
			return refuse(client.CodeInUse, "volume "+v.Name+" is active")
		}
	}
	delete(h.attached, sr)
	return nil
}

// Repository implements storage.Hostd.
func (h *Hostd) Repository(ctx context.Context, sr string) (client.Repository, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	m, err := h.repository(ctx, sr)
	if err != nil {
		return client.Repository{}, err
	}
	return m.repository(), nil
}

func (h *Hostd) repository(ctx context.Context, sr string) (*medium, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if m := h.attached[sr]; m != nil {
		return m, nil
	}
	return nil, refuse(client.CodeNotAttached, "repository "+sr+" is not attached")
}

func (m *medium) repository() client.Repository {
	used := m.used()
	return client.Repository{
		UUID: m.uuid, Type: m.kind, Config: maps.Clone(m.config), Path: "/run/sr-mount/" + m.uuid,
		Total: m.size, Used: used, Free: max(0, m.size-used), ReadOnly: m.kind == client.TypeISO || m.kind == client.TypeUdev,
	}
}

func (m *medium) used() (sum int64) {
	for _, v := range m.volumes {
		sum += v.Used
	}
	return sum
}
