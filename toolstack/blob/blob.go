// Package blob keeps small pieces of data that clients attach to objects: a
// screenshot, a note, an icon. The record is in the database, the bytes are a file
// under the state directory, named by the blob's uuid.
//
// Bytes are replaced as a whole: they are written beside the old ones and renamed,
// so that a reader sees one or the other. A blob, and all of them together, are
// bounded. A Manager may be used by many goroutines.
package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire"
)

// Bounds of what is kept: these are not for disks.
const (
	maxSize  = 16 << 20
	maxTotal = 256 << 20
)

// defaultType is what a blob of unsaid type holds.
const defaultType = "application/octet-stream"

// Manager keeps blobs.
type Manager struct {
	db  *db.DB
	dir string

	mu sync.Mutex // replacing and removing files
}

// New returns a manager that keeps bytes in a directory, which it makes. Files
// that no record speaks of are removed.
func New(d *db.DB, dir string) (*Manager, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	m := &Manager{db: d, dir: dir}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("blobs: %w", err)
	}
	for _, e := range entries {
		if d.Snapshot().RefByUUID(api.ClassOf[api.Blob](), e.Name()) != "" {
			continue
		}
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil {
			return nil, fmt.Errorf("blobs: %w", err)
		}
	}
	return m, nil
}

// Register binds the behaviour of class blob, and of the classes that have blobs.
func (m *Manager) Register(r *api.Registry) {
	api.HandleBlobCreate(r, func(c *api.Call, mime string, public bool) (api.BlobRef, error) {
		ref := api.NewRef[api.Blob]()
		return ref, m.db.Update(c, func(tx *db.Tx) error { insert(tx, ref, "", mime, public); return nil })
	})
	api.HandleBlobDestroy(r, m.destroy)
	api.HandleVMCreateNewBlob(r, attach(m, func(r *api.VM) *map[string]api.BlobRef { return &r.Blobs }))
	api.HandlePoolCreateNewBlob(r, attach(m, func(r *api.Pool) *map[string]api.BlobRef { return &r.Blobs }))
	api.HandleHostCreateNewBlob(r, attach(m, func(r *api.Host) *map[string]api.BlobRef { return &r.Blobs }))
	api.HandleNetworkCreateNewBlob(r, attach(m, func(r *api.Network) *map[string]api.BlobRef { return &r.Blobs }))
	api.HandleSRCreateNewBlob(r, attach(m, func(r *api.SR) *map[string]api.BlobRef { return &r.Blobs }))
}

func insert(tx *db.Tx, ref api.BlobRef, name, mime string, public bool) {
	r := api.NewBlob()
	r.NameLabel, r.MimeType, r.Public = name, mime, public
	if mime == "" {
		r.MimeType = defaultType
	}
	db.InsertAs(tx, ref, r)
}

// attach serves create_new_blob: a blob and its name in an object's map.
func attach[T any, P api.RecordPtr[T]](m *Manager, blobs func(*T) *map[string]api.BlobRef) func(*api.Call, api.Ref[T], string, string, bool) (api.BlobRef, error) {
	return func(c *api.Call, self api.Ref[T], name, mime string, public bool) (api.BlobRef, error) {
		ref := api.NewRef[api.Blob]()
		return ref, db.Modify[T, P](c, m.db, self, func(tx *db.Tx, r *T) error {
			all := blobs(r)
			if _, ok := (*all)[name]; ok {
				return api.ErrMapDuplicateKey(P(nil).Class().Name, "blobs", self.String(), name)
			}
			if *all == nil {
				*all = map[string]api.BlobRef{}
			}
			(*all)[name] = ref
			insert(tx, ref, name, mime, public)
			return nil
		})
	}
}

// destroy forgets a blob, what it holds, and its name in objects.
func (m *Manager) destroy(c *api.Call, self api.BlobRef) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, err := db.Get(m.db.Snapshot(), self)
	if err != nil {
		return err
	}
	err = m.db.Update(c, func(tx *db.Tx) error {
		detach(tx, self, func(r *api.VM) map[string]api.BlobRef { return r.Blobs })
		detach(tx, self, func(r *api.Pool) map[string]api.BlobRef { return r.Blobs })
		detach(tx, self, func(r *api.Host) map[string]api.BlobRef { return r.Blobs })
		detach(tx, self, func(r *api.Network) map[string]api.BlobRef { return r.Blobs })
		detach(tx, self, func(r *api.SR) map[string]api.BlobRef { return r.Blobs })
		return db.Delete(tx, self)
	})
	if err != nil {
		return err
	}
	if err := os.Remove(m.path(r.UUID)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob %s: %w", r.UUID, err)
	}
	return nil
}

// detach takes a blob out of the maps of a class.
func detach[T any, P api.RecordPtr[T]](tx *db.Tx, blob api.BlobRef, blobs func(*T) map[string]api.BlobRef) {
	var holders []api.Ref[T]
	for ref, r := range db.All[T, P](tx) {
		for _, b := range blobs(r) {
			if b == blob {
				holders = append(holders, ref)
			}
		}
	}
	for _, ref := range holders {
		r, err := db.Edit[T, P](tx, ref)
		if err != nil {
			continue // it was there a moment ago
		}
		for name, b := range blobs(r) {
			if b == blob {
				delete(blobs(r), name)
			}
		}
	}
}

func (m *Manager) path(uuid string) string { return filepath.Join(m.dir, uuid) }

// Handle adds the streams that read and write blobs.
func (m *Manager) Handle(s *wire.Server) {
	s.Transfer("GET", "/blob", m.get)
	s.Transfer("PUT", "/blob", m.put)
}

// find returns the blob a request is about, by reference or uuid.
func (m *Manager) find(r *wire.Request, action string) (api.BlobRef, *api.Blob, error) {
	if err := r.Authorize(action); err != nil {
		return "", nil, err
	}
	query := r.URL.Query()
	ref := api.BlobRef(api.ParseRef(query.Get("ref")))
	if uuid := query.Get("uuid"); uuid != "" {
		var err error
		if ref, err = db.ByUUID[api.Blob](m.db.Snapshot(), uuid); err != nil {
			return "", nil, err
		}
	}
	rec, err := db.Get(m.db.Snapshot(), ref)
	return ref, rec, err
}

// get answers what a blob holds; one that was never written holds nothing.
func (m *Manager) get(w http.ResponseWriter, r *wire.Request) error {
	_, rec, err := m.find(r, "get_blob")
	if err != nil {
		return err
	}
	header := w.Header()
	header.Set("Content-Type", safeType(rec.MimeType))
	header.Set("X-Content-Type-Options", "nosniff")
	header.Set("Content-Security-Policy", "sandbox")
	f, err := os.Open(m.path(rec.UUID))
	if errors.Is(err, fs.ErrNotExist) {
		header.Set("Content-Length", "0")
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	header.Set("Content-Length", strconv.FormatInt(info.Size(), 10))
	_, err = io.Copy(w, f)
	return err
}

// safeType is a blob's type as a header may carry it.
func safeType(mime string) string {
	if strings.ContainsFunc(mime, func(c rune) bool { return c < ' ' || c > '~' }) {
		return defaultType
	}
	return mime
}

// put replaces what a blob holds.
func (m *Manager) put(w http.ResponseWriter, r *wire.Request) error {
	ref, rec, err := m.find(r, "put_blob")
	if err != nil {
		return err
	}
	if r.ContentLength > maxSize {
		return tooLarge()
	}
	f, err := os.CreateTemp(m.dir, ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // unless it was renamed
	defer f.Close()
	size, err := io.Copy(f, io.LimitReader(r.Body, maxSize+1))
	if err == nil && size > maxSize {
		err = tooLarge()
	}
	if err == nil {
		err = f.Sync()
	}
	if err != nil {
		return err
	}
	return m.replace(r, ref, rec.UUID, f.Name(), size)
}

func tooLarge() error {
	return api.ErrOperationNotAllowed(fmt.Sprintf("a blob holds at most %d bytes", maxSize))
}

// replace makes a file what a blob holds, and the record say so.
func (m *Manager) replace(r *wire.Request, ref api.BlobRef, uuid, file string, size int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	total := size
	for other, b := range db.All[api.Blob](m.db.Snapshot()) {
		if other != ref {
			total += b.Size
		}
	}
	if total > maxTotal {
		return api.ErrOperationNotAllowed(fmt.Sprintf("all blobs together hold at most %d bytes", maxTotal))
	}
	if _, err := db.Get(m.db.Snapshot(), ref); err != nil {
		return err // destroyed meanwhile
	}
	if err := os.Rename(file, m.path(uuid)); err != nil {
		return err
	}
	if err := syncDir(m.dir); err != nil {
		return err
	}
	return db.Modify(context.WithoutCancel(r.Context()), m.db, ref, func(_ *db.Tx, rec *api.Blob) error {
		rec.Size, rec.LastUpdated = size, time.Now().UTC()
		return nil
	})
}

// syncDir makes a rename durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}
