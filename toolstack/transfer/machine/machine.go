// Package machine lets VMs leave and arrive with their disks, as archives (packages xva
// and ovf) over HTTP: the streams /export, /import, /export_metadata and /import_metadata, and
// the message VM.import.
//
// An import makes disks while their bytes come and rows when all has come: the VMs, their
// drives and NICs, and networks that were missing appear in one transaction, or nothing
// does. Until then its disks bear the mark of an unfinished job, and whatever ends it (a
// client that hangs up, a wrong checksum, a full disk, a power cut) they are
// destroyed, by this process or by the next. Nothing is made before the description was
// read, planned (package plan) and found possible, and a disk not before its first
// bytes.
//
// An export holds its VMs, so that they do not start meanwhile, and reads what disks say
// is not zero. Memory is bounded by the description, a chunk, and what packs it; streams
// end with their task.
//
// A Manager may be used by many goroutines.
package machine

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"time"

	"cairn/journal"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/storage"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire"
)

// VMs is what this package needs of the life-cycle of VMs; *vm.Manager is one. What the
// methods promise is said there.
type VMs interface {
	Making(ctx context.Context) (making context.Context, end func())
	Hold(c *api.Call, ref api.VMRef, op api.VMOperations) (release func(), err error)
	Arrive(ctx context.Context, also func(*db.Tx) error, list []vm.Arrival) ([]api.VMRef, error)
}

var _ VMs = (*vm.Manager)(nil)

// Disks is what it needs of storage.
type Disks interface {
	Create(ctx context.Context, spec storage.CreateSpec) (api.VDIRef, error)
	// Open gives the bytes of a disk that no machine uses. It stays held until it is
	// closed or the context ends.
	Open(ctx context.Context, vdi api.VDIRef, write bool) (disk.Device, error)
	// Elsewhere is a host that can reach a repository which this one cannot.
	Elsewhere(sr api.SRRef) (api.HostRef, bool)
}

var _ Disks = (*storage.Manager)(nil)

// Config is what a Manager needs.
type Config struct {
	DB    *db.DB
	VMs   VMs
	Disks Disks
	// ThisHost is the host whose name and version descriptions bear.
	ThisHost func() api.HostRef
	// Get opens what VM.import is told to fetch; nil is HTTP.
	Get func(ctx context.Context, url string) (io.ReadCloser, error)
	// Patience is how long a client may send nothing before it is told that its request
	// was understood, which some wait for; 0 is a second.
	Patience time.Duration
	Now      func() time.Time
	Log      *slog.Logger
}

// Manager serves the streams.
type Manager struct{ cfg Config }

// New returns a manager.
func New(cfg Config) *Manager {
	if cfg.Get == nil {
		cfg.Get = download
	}
	if cfg.Patience == 0 {
		cfg.Patience = time.Second
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = journal.Discard()
	}
	return &Manager{cfg}
}

// self is this host's record.
func (m *Manager) self() *api.Host {
	if h, err := db.Get(m.cfg.DB.Snapshot(), m.cfg.ThisHost()); err == nil {
		return h
	}
	return api.NewHost()
}

// Register binds the messages.
func (m *Manager) Register(r *api.Registry) { api.HandleVMImport(r, m.importFrom) }

// Handle adds the streams.
func (m *Manager) Handle(s *wire.Server) {
	s.Transfer(http.MethodGet, "/export", m.serveExport)
	s.Transfer(http.MethodGet, "/export_metadata", m.serveExportMetadata)
	s.Transfer(http.MethodPut, "/import", m.serveImport)
	s.Transfer(http.MethodPut, "/import_metadata", m.serveImportMetadata)
}
