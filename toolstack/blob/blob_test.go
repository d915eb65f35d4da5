package blob

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/wire/wiretest"
)

// server is a server with blobs in a directory.
func server(t *testing.T) (*wiretest.Server, string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "blobs")
	var m *Manager
	s := wiretest.New(t, func(r *api.Registry, d *db.DB) {
		var err error
		if m, err = New(d, dir); err != nil {
			t.Fatal(err)
		}
		m.Register(r)
	})
	m.Handle(s.Wire)
	return s, dir
}

// send sends a request about a blob and returns the status, type and body.
func send(t *testing.T, s *wiretest.Server, method string, query url.Values, body io.Reader) (int, string, string) {
	t.Helper()
	query.Set("session_id", s.Session)
	r, err := http.NewRequest(method, s.HTTP.URL+"/blob?"+query.Encode(), body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(text)
}

func code(err error) string {
	var known *api.Error
	if errors.As(err, &known) {
		return known.Code
	}
	return ""
}

func TestBytesOfABlob(t *testing.T) {
	s, dir := server(t)
	var ref, uuid string
	s.Must(&ref, "blob.create", "text/x-note", false)
	s.Must(&uuid, "blob.get_uuid", ref)
	byRef, byUUID := url.Values{"ref": {ref}}, url.Values{"uuid": {uuid}}
	if status, kind, body := send(t, s, "GET", byRef, nil); status != 200 || body != "" || kind != "text/x-note" {
		t.Errorf("before: %d %s %q", status, kind, body)
	}
	for _, text := range []string{"a first note", "another"} {
		if status, _, body := send(t, s, "PUT", byRef, strings.NewReader(text)); status != 200 {
			t.Fatalf("put: %d %s", status, body)
		}
		if status, _, body := send(t, s, "GET", byUUID, nil); status != 200 || body != text {
			t.Errorf("get: %d %q, want %q", status, body, text)
		}
		var size int64
		var updated string
		s.Must(&size, "blob.get_size", ref)
		s.Must(&updated, "blob.get_last_updated", ref)
		if size != int64(len(text)) || updated < "2020" {
			t.Errorf("size %d, updated %s", size, updated)
		}
	}
	if status, _, _ := send(t, s, "PUT", byRef, bytes.NewReader(make([]byte, maxSize+1))); status == 200 {
		t.Error("a blob over the bound was taken")
	}
	long := struct{ io.Reader }{bytes.NewReader(make([]byte, maxSize+1))} // of unsaid length
	if status, _, _ := send(t, s, "PUT", byRef, long); status == 200 {
		t.Error("a blob over the bound was taken in chunks")
	}
	if _, _, body := send(t, s, "GET", byRef, nil); body != "another" {
		t.Errorf("a refused upload changed the blob: %d bytes", len(body))
	}
	if status, _, _ := send(t, s, "GET", url.Values{"ref": {"OpaqueRef:none"}}, nil); status == 200 {
		t.Error("a blob that is not there was read")
	}
	s.Must(nil, "blob.destroy", ref)
	if files, err := os.ReadDir(dir); err != nil || len(files) != 0 {
		t.Errorf("%v, files left: %v", err, files)
	}
	if _, err := s.Call("blob.get_record", ref); code(err) != "HANDLE_INVALID" {
		t.Error(err)
	}
	s.Covers("blob.create", "blob.destroy", "blob.get_uuid", "blob.get_size", "blob.get_last_updated")
}

func TestBlobsOfObjects(t *testing.T) {
	s, _ := server(t)
	refs := map[string]string{}
	err := s.DB.Update(t.Context(), func(tx *db.Tx) error {
		refs["VM"] = db.Insert(tx, api.NewVM()).String()
		refs["pool"] = db.Insert(tx, api.NewPool()).String()
		refs["host"] = db.Insert(tx, api.NewHost()).String()
		refs["network"] = db.Insert(tx, api.NewNetwork()).String()
		refs["SR"] = db.Insert(tx, api.NewSR()).String()
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for class, object := range refs {
		var ref string
		s.Must(&ref, class+".create_new_blob", object, "icon", "image/png", true)
		blobs := map[string]string{}
		s.Must(&blobs, class+".get_blobs", object)
		var record struct {
			Name   string `json:"name_label"`
			Mime   string `json:"mime_type"`
			Public bool
		}
		s.Must(&record, "blob.get_record", ref)
		if len(blobs) != 1 || blobs["icon"] != ref || record.Name != "icon" || record.Mime != "image/png" || !record.Public {
			t.Errorf("%s: %v, %+v", class, blobs, record)
		}
		if _, err := s.Call(class+".create_new_blob", object, "icon", "", false); code(err) != "MAP_DUPLICATE_KEY" {
			t.Errorf("%s: a second one of the name: %v", class, err)
		}
		if _, err := s.Call(class+".create_new_blob", "OpaqueRef:none", "icon", "", false); code(err) != "HANDLE_INVALID" {
			t.Errorf("%s: %v", class, err)
		}
		s.Must(nil, "blob.destroy", ref)
		clear(blobs)
		s.Must(&blobs, class+".get_blobs", object)
		if len(blobs) != 0 {
			t.Errorf("%s: %v after the blob was destroyed", class, blobs)
		}
		s.Covers(class+".create_new_blob", class+".get_blobs")
	}
	if n := s.DB.Snapshot().Count(api.ClassOf[api.Blob]()); n != 0 {
		t.Errorf("%d blobs are left", n)
	}
	s.Covers("blob.get_record")
}

// TestAllTogether: the sum of all blobs is bounded, and files without a record do
// not outlive a restart.
func TestAllTogether(t *testing.T) {
	s, dir := server(t)
	var ref, uuid string
	s.Must(&ref, "blob.create", "", false)
	s.Must(&uuid, "blob.get_uuid", ref)
	err := s.DB.Update(t.Context(), func(tx *db.Tx) error {
		db.Insert(tx, &api.Blob{Size: maxTotal - 5})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if status, _, _ := send(t, s, "PUT", url.Values{"ref": {ref}}, strings.NewReader("123456")); status == 200 {
		t.Error("more than all may hold was taken")
	}
	if status, _, body := send(t, s, "PUT", url.Values{"ref": {ref}}, strings.NewReader("12345")); status != 200 {
		t.Errorf("what fits was refused: %s", body)
	}
	for _, stray := range []string{".new-1", "5bd9a81c-72a6-4a9e-8d2f-6f3c7b0c1d2e"} {
		if err := os.WriteFile(filepath.Join(dir, stray), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := New(s.DB, dir); err != nil {
		t.Fatal(err)
	}
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 || files[0].Name() != uuid {
		t.Errorf("%v, files: %v", err, files)
	}
}

func TestSafeType(t *testing.T) {
	for mime, want := range map[string]string{"text/plain": "text/plain", "a\r\nSet-Cookie: x": defaultType, "é": defaultType} {
		if got := safeType(mime); got != want {
			t.Errorf("%q: %q", mime, got)
		}
	}
}
