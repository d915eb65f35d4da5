package build

import (
	"errors"
	"fmt"
	"os"

	"cairn/image/units"
	"cairn/init/supervise/catalogue"
	kernelconfig "cairn/kernel-config"
)

// checks are what must hold before anything is built: the kernel can do what
// the appliance needs, and Debian's units are those the catalogue was written
// from.
func (b *builder) checks() error {
	versions, err := kernelconfig.Kernels(b.tree)
	if err != nil {
		return err
	}
	if len(versions) != 1 {
		return fmt.Errorf("the Debian tree has %d kernels, want one: %v", len(versions), versions)
	}
	b.kernel = versions[0]
	config, err := os.Open(b.tree.Path("/boot/config-" + b.kernel))
	if err != nil {
		return err
	}
	defer config.Close()
	report, err := kernelconfig.Check(config)
	if err != nil {
		return err
	}
	return errors.Join(report.Err(), catalogue.Validate(catalogue.All()), units.Check(b.tree, catalogue.All()))
}
