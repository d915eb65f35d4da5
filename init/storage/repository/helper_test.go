package repository

import (
	"testing"

	"cairn/init/hostd/client"
)

const (
	srA = "0ab7a2c5-1c8c-4f2b-9c7a-00000000000a"
	srB = "0ab7a2c5-1c8c-4f2b-9c7a-00000000000b"
	mib = 1 << 20
)

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// refused checks the code of an error.
func refused(t *testing.T, err error, code string) {
	t.Helper()
	if !is(err, code) {
		t.Errorf("error %v, want %s", err, code)
	}
}

func fileConfig(dir string) client.RepositoryConfig {
	return client.RepositoryConfig{Type: client.TypeFile, Config: map[string]string{"location": dir}}
}
