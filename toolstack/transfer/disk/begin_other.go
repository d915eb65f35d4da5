//go:build !linux

package disk

import "os"

func begin(*os.File, int64, int64) {}
