// Package repository keeps storage repositories and their volumes.
//
// Invariants, which a crash at any point leaves true:
//   - A volume is there whole or not at all: it is made under another name or mark,
//     written, flushed, and then takes its own name in one step. What carries the
//     mark when a repository is attached is of nobody and removed.
//   - A medium is formatted only when nothing is found on it, and erased only when
//     it carries this repository's own signature.
//   - What is answered is on disk.
//   - Names never leave the repository: they are checked before they become paths,
//     and what an image's header says is checked before QEMU follows it.
//
// Which repositories are attached, and which of their volumes are active, is kept
// in a file that lives until the next boot, so that a restart of hostd finds what
// it left.
//
// Concurrency: verbs may be called from many goroutines. Each takes the names it
// reads or writes; short verbs wait for each other, and a name held by long work
// is refused at once, with what is being done to it.
package repository

import (
	"context"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	"cairn/init/hostd/client"
	"cairn/init/storage"
	"cairn/init/storage/media"
	"cairn/init/storage/tool"
)

// Mounter mounts file systems.
type Mounter interface {
	Mounted(target string) (source string, err error)
	Prepare(fstype string) error
	Mount(source, target, fstype string, options []storage.Option) error
	Unmount(target string) error
	MkdirAll(path string, mode fs.FileMode) error
}

// Config is all a Manager needs from outside.
type Config struct {
	Tools   tool.Runner
	Media   media.Source
	Mounter Mounter
	// MountDir is below which repositories are mounted.
	MountDir string
	// Record is the file that remembers attached repositories until the next boot.
	Record string
	// LVMDir holds LVM's configuration, made here.
	LVMDir string
	// ExportDir holds the sockets of volumes that are lent out.
	ExportDir string
	// FilePrefixes and ISOPrefixes are the directories below which repositories of
	// TypeFile and TypeISO may be.
	FilePrefixes, ISOPrefixes []string
	// User and Group own volumes: QEMU's. Both 0 leaves owners alone.
	User, Group int
	Log         *slog.Logger
}

// Manager serves the verbs on repositories and volumes.
type Manager struct {
	cfg     Config
	drivers map[string]driver
	locks   *locks
	heavy   chan struct{} // bounds programs that read and write whole images
	lent    chan struct{} // bounds those that lend them out

	mu       sync.Mutex // of what follows, and of the file it is kept in
	attached map[string]*repo
	record   record
	loans    map[string]context.CancelFunc // exports by id
}

// maxHeavy is how many images are worked on at once: more only make a disk seek.
const maxHeavy = 4

// repo is an attached repository.
type repo struct {
	store
	uuid    string
	config  client.RepositoryConfig
	problem string
}

// driver makes and finds repositories of one type. Configs have been checked.
type driver interface {
	check(config map[string]string) error
	probe(ctx context.Context, config map[string]string) ([]client.Repository, error)
	format(ctx context.Context, sr string, config map[string]string) error
	erase(ctx context.Context, sr string, config map[string]string) error
	// attach returns the volumes, and a defect that does not keep from using them.
	attach(ctx context.Context, sr string, config map[string]string) (store, string, error)
}

// space is a medium's, in bytes.
type space struct{ total, used, free int64 }

// store is the volumes of an attached repository. What it is asked for has been
// locked, and names have been checked.
type store interface {
	path() string
	space(ctx context.Context) (space, error)
	list(ctx context.Context) ([]client.Volume, error)
	volume(ctx context.Context, name string) (client.Volume, error)
	create(ctx context.Context, name string, spec client.VolumeSpec) error
	remove(ctx context.Context, v client.Volume) error
	resize(ctx context.Context, v client.Volume, size int64) error
	// grow makes room for a larger volume, which it is not yet.
	grow(ctx context.Context, v client.Volume, size int64) error
	// activate and deactivate are told which volumes are to stay active.
	activate(ctx context.Context, v client.Volume) error
	deactivate(ctx context.Context, v client.Volume, active []string) error
	rebase(ctx context.Context, v, backing client.Volume) error
	commit(ctx context.Context, v, backing client.Volume, progress func(float64)) error
	check(ctx context.Context, v client.Volume) (client.Check, error)
	note(ctx context.Context, v client.Volume, note string) error
	// read makes a volume's bytes readable until release is called.
	read(ctx context.Context, v client.Volume) (path string, release func(), err error)
	// receive makes a volume whose content fill writes to the path it is given.
	receive(ctx context.Context, name string, spec client.VolumeSpec, fill func(path string) error) error
	detach(ctx context.Context) error
	readOnly() bool
}

// New returns a Manager that has touched nothing yet.
func New(cfg Config) *Manager {
	m := &Manager{cfg: cfg, locks: newLocks(), heavy: make(chan struct{}, maxHeavy), lent: make(chan struct{}, maxLent), attached: map[string]*repo{}, loans: map[string]context.CancelFunc{}}
	m.drivers = map[string]driver{
		client.TypeFile:  fileDriver{m},
		client.TypeExt:   extDriver{m},
		client.TypeLVM:   lvmDriver{m},
		client.TypeISO:   isoDriver{m},
		client.TypeUdev:  udevDriver{m},
		client.TypeDummy: dummyDriver{},
	}
	m.record = m.readRecord()
	m.clearExports()
	return m
}

// resumeLimit bounds how long each repository may take to be attached anew.
const resumeLimit = 15 * time.Minute

// Resume attaches what an earlier hostd of this boot had attached, and removes
// what it had half made.
func (m *Manager) Resume(ctx context.Context) {
	for _, sr := range m.recorded() {
		ctx, cancel := context.WithTimeout(ctx, resumeLimit)
		if _, err := m.use(ctx, sr); err != nil {
			m.cfg.Log.Error("repository-not-attached", "sr", sr, "err", err)
		}
		cancel()
	}
}

// find returns an attached repository, if need be by attaching it anew. Its name
// must be locked.
func (m *Manager) find(ctx context.Context, sr string) (*repo, error) {
	m.mu.Lock()
	r, ok := m.attached[sr]
	entry, known := m.record[sr]
	m.mu.Unlock()
	switch {
	case ok:
		return r, nil
	case !known:
		return nil, Fail(client.CodeNotAttached, "repository %s is not attached", sr)
	}
	return m.bringUp(ctx, sr, entry.Config)
}

func (m *Manager) bringUp(ctx context.Context, sr string, config client.RepositoryConfig) (*repo, error) {
	d, err := m.driver(config)
	if err != nil {
		return nil, err
	}
	s, problem, err := d.attach(ctx, sr, config.Config)
	if err != nil {
		return nil, err
	}
	r := &repo{store: s, uuid: sr, config: config, problem: problem}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.attached[sr] = r
	if _, ok := m.record[sr]; ok {
		return r, nil
	}
	m.record[sr] = entry{Config: config}
	return r, m.writeRecord()
}

// driver finds the driver of a config and lets it check the config.
func (m *Manager) driver(config client.RepositoryConfig) (driver, error) {
	d, ok := m.drivers[config.Type]
	if !ok {
		return nil, Fail(client.CodeUnsupported, "repositories of type %q are not known", config.Type)
	}
	return d, d.check(config.Config)
}
