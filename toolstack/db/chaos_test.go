//go:build lab

package db_test

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// setting is a number from the environment, with which a failure is repeated
// or a run made longer.
func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func seed(t *testing.T) uint64 {
	return uint64(setting(t, "SEED", int(time.Now().UnixNano()%1e6)))
}

func TestKillsSmoke(t *testing.T) { killOften(t, seed(t), 30) }

func TestChaosKills(t *testing.T) { killOften(t, seed(t), setting(t, "KILLS", 1000)) }
