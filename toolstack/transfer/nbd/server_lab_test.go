//go:build lab

package nbd_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"testing"

	"cairn/image/debian/debiantest"
	"cairn/toolstack/session/identity"
)

// TestLendToQEMU has qemu-img copy a disk from the server, over TLS and in clear.
func TestLendToQEMU(t *testing.T) {
	img := debiantest.Program(t, "qemu-img")
	dir := t.TempDir()
	config, id, err := identity.Load(filepath.Join(dir, "id"), identity.Options{Names: []string{"localhost", "127.0.0.1"}})
	must(t, err)
	must(t, os.WriteFile(filepath.Join(dir, "ca-cert.pem"), id.CAPEM, 0o600))
	m := filled(9 << 20)
	for _, secret := range []bool{true, false} {
		l := newLibrary(m)
		args := []string{"convert", "-O", "raw"}
		creds := ""
		if secret {
			l.admit(config)
			args = append(args, "--object", "tls-creds-x509,id=t,endpoint=client,dir="+dir)
			creds = ",tls-creds=t"
		}
		lis, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Serve(ctx, lis) }()
		_, port, err := net.SplitHostPort(lis.Addr().String())
		must(t, err)
		to := filepath.Join(dir, "copy")
		args = append(args, "--image-opts", "driver=nbd,host=127.0.0.1,port="+port+",export=/disk"+creds, to)
		img(args...)
		if b, err := os.ReadFile(to); err != nil || string(b) != string(m.Bytes()) {
			t.Errorf("TLS %v: the copy is another, %v", secret, err)
		}
		cancel()
		<-ended
	}
}
