package repository

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"cairn/init/hostd/client"
)

// fileDriver keeps volumes in a directory of the host.
type fileDriver struct{ m *Manager }

// directoryMode lets QEMU reach its volumes and nobody list them.
const directoryMode = 0o711

func (d fileDriver) check(config map[string]string) error {
	if err := onlyKeys(config, "location"); err != nil {
		return err
	}
	_, err := location(config, d.m.cfg.FilePrefixes)
	return err
}

// probe looks at the location, or at all directories of the prefixes.
func (d fileDriver) probe(ctx context.Context, config map[string]string) ([]client.Repository, error) {
	if err := onlyKeys(config, "location"); err != nil {
		return nil, err
	}
	if config["location"] != "" {
		dir, err := location(config, d.m.cfg.FilePrefixes)
		if err != nil {
			return nil, err
		}
		return d.look(ctx, dir), nil
	}
	var out []client.Repository
	for _, prefix := range d.m.cfg.FilePrefixes {
		entries, err := os.ReadDir(prefix)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			if e.IsDir() {
				out = append(out, d.look(ctx, filepath.Join(prefix, e.Name()))...)
			}
		}
	}
	return out, nil
}

// look describes a directory that is a repository or could become one.
func (d fileDriver) look(ctx context.Context, dir string) []client.Repository {
	m, err := readMark(dir)
	if err != nil {
		return nil
	}
	if _, err := os.Stat(dir); m.UUID == "" && err == nil && len(strangers(dir)) > 0 {
		return nil
	}
	r := client.Repository{UUID: m.UUID, Config: map[string]string{"location": dir}}
	if s, err := (&directory{dir: dir}).space(ctx); err == nil {
		r.Total, r.Used, r.Free = s.total, s.used, s.free
	}
	return []client.Repository{r}
}

func (d fileDriver) format(_ context.Context, sr string, config map[string]string) error {
	dir := config["location"]
	if err := within(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, directoryMode); err != nil {
		return err
	}
	if err := putMark(dir, sr); err != nil {
		return err
	}
	if err := os.Chmod(dir, directoryMode); err != nil {
		return err
	}
	return flush(filepath.Dir(dir))
}

// within refuses a directory inside another repository, which would go with that. One
// that has a repository inside is refused for not being empty.
func within(dir string) error {
	for up := filepath.Dir(dir); up != dir; dir, up = up, filepath.Dir(up) {
		m, err := readMark(up)
		if err != nil {
			return err
		}
		if m.UUID != "" {
			return Fail(client.CodeBadRequest, "the location is inside %s, which is repository %s", up, m.UUID)
		}
	}
	return nil
}

func (d fileDriver) erase(_ context.Context, sr string, config map[string]string) error {
	dir := config["location"]
	err := expectMark(dir, sr)
	if is(err, client.CodeNotFound) {
		return nil
	}
	if err == nil {
		err = (&directory{m: d.m, sr: sr, dir: dir}).clear()
	}
	if err != nil {
		return err
	}
	_ = os.Remove(dir) // files of others keep it
	return nil
}

func (d fileDriver) attach(_ context.Context, sr string, config map[string]string) (store, string, error) {
	dir := config["location"]
	if err := expectMark(dir, sr); err != nil {
		return nil, "", err
	}
	bed := &directory{m: d.m, sr: sr, dir: dir}
	return images{bed, d.m}, "", bed.sweep()
}
