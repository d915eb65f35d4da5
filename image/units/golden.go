package units

import (
	"embed"
	"fmt"
	"os"
	"path"

	"cairn/init/supervise/catalogue"
)

//go:embed testdata/*.golden
var accepted embed.FS

// Tree maps an absolute path of the Debian tree to its place on this machine.
type Tree interface {
	Path(string) string
}

// Check compares the units of all services with their golden files.
func Check(t Tree, services []catalogue.Service) error {
	for _, s := range services {
		if s.Unit == "" {
			continue
		}
		if err := check(t, s); err != nil {
			return fmt.Errorf("service %s: %w", s.Name, err)
		}
	}
	return nil
}

func check(t Tree, s catalogue.Service) error {
	want, err := accepted.ReadFile(path.Join("testdata", s.Name+".golden"))
	if err != nil {
		return fmt.Errorf("no golden file: %w", err)
	}
	f, err := os.Open(t.Path(s.Unit))
	if err != nil {
		return err
	}
	defer f.Close()
	return Drift(path.Base(s.Unit), string(want), f)
}
