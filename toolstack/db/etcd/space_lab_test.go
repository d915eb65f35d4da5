//go:build lab

package etcd

import "testing"

func TestChaosFileIsBounded(t *testing.T) { boundFile(t, 50000, 2000) }
