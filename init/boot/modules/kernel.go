package modules

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// compressedFile is MODULE_INIT_COMPRESSED_FILE: the kernel unpacks the file.
const compressedFile = 4

// Kernel returns a Loader for the module files below dir.
func Kernel(dir string) Loader {
	return func(file string) error {
		f, err := os.Open(filepath.Join(dir, file))
		if err != nil {
			return err
		}
		defer f.Close()
		flags := compressedFile
		if strings.HasSuffix(file, ".ko") {
			flags = 0
		}
		return unix.FinitModule(int(f.Fd()), "", flags)
	}
}
