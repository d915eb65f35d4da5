//go:build lab

package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"

	"cairn/image/debian"
	cbt "cairn/toolstack/storage/changes"
	"cairn/toolstack/transfer/nbd"
)

// place is where a disk can be read.
type place struct {
	Export  string `json:"exportname"`
	Address string
	Port    int
	Cert    string
	Subject string
}

func (b *backups) place(ctx context.Context, vdi string) place {
	b.T.Helper()
	var all []place
	b.Call(ctx, &all, "VDI.get_nbd_info", vdi)
	if len(all) != 1 {
		b.T.Fatalf("%d places to read a disk at, want one", len(all))
	}
	return all[0]
}

// open connects as a backup program does: it trusts the certificate it was told of, and
// no other.
func (b *backups) open(ctx context.Context, vdi string) *nbd.Client {
	b.T.Helper()
	p := b.place(ctx, vdi)
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(p.Cert)) {
		b.T.Fatalf("no certificate in %q", p.Cert)
	}
	conn, err := b.host.Dial(ctx, "tcp", net.JoinHostPort(p.Address, fmt.Sprint(p.Port)))
	b.must(err)
	disk, err := nbd.Secure(ctx, conn, &tls.Config{RootCAs: roots, ServerName: p.Subject}, p.Export)
	b.must(err)
	if !disk.ReadOnly() || disk.Size() != backedUp {
		b.T.Errorf("a disk of %d bytes, read only: %v", disk.Size(), disk.ReadOnly())
	}
	return disk
}

// save reads the changed blocks into a generation's file.
func (b *backups) save(disk *nbd.Client, next backup) (blocks int) {
	b.T.Helper()
	f, err := os.Create(next.file)
	b.must(err)
	defer f.Close()
	block := make([]byte, cbt.Block)
	for i := range int64(backedUp / cbt.Block) {
		if !next.changed.Has(i) {
			continue
		}
		_, err := disk.ReadAt(block, i*cbt.Block)
		b.must(err)
		_, err = f.WriteAt(block, i*cbt.Block)
		b.must(err)
		blocks++
	}
	return blocks
}

// convert has qemu-img copy a snapshot, over TLS too. It takes the certificate for one
// of an authority, and is told to leave it at that.
func (b *backups) convert(ctx context.Context, vdi string, want [sha256.Size]byte) {
	b.T.Helper()
	p := b.place(ctx, vdi)
	dir := b.T.TempDir()
	b.must(os.WriteFile(filepath.Join(dir, "ca-cert.pem"), []byte(p.Cert), 0o600))
	tree, err := debian.Open(ctx, debian.Config{})
	b.must(err)
	source := fmt.Sprintf("driver=nbd,host=%s,port=%d,export=%s,tls-creds=t,tls-hostname=%s", p.Address, p.Port, p.Export, p.Subject)
	to := filepath.Join(dir, "copy")
	cmd := tree.Command(ctx, "qemu-img", "convert", "-O", "raw", "--object", "tls-creds-x509,id=t,endpoint=client,sanity-check=off,dir="+dir, "--image-opts", source, to)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	b.must(b.host.Do(cmd.Start))
	if err := cmd.Wait(); err != nil {
		b.T.Errorf("qemu-img: %v\n%s", err, &said)
		return
	}
	text, err := os.ReadFile(to)
	b.must(err)
	if sha256.Sum256(text) != want {
		b.T.Error("qemu-img reads something else")
	}
}

// restore puts every generation together. The last one becomes a disk again.
func (b *backups) restore(ctx context.Context) {
	b.T.Helper()
	image := make([]byte, backedUp)
	for g, one := range b.all {
		f, err := os.Open(one.file)
		b.must(err)
		for i := range int64(backedUp / cbt.Block) {
			if one.changed.Has(i) {
				_, err := f.ReadAt(image[i*cbt.Block:(i+1)*cbt.Block], i*cbt.Block)
				b.must(err)
			}
		}
		f.Close()
		if sha256.Sum256(image) != one.sum {
			b.T.Errorf("generation %d is not what its snapshot was", g)
		}
	}
	into, _ := b.Disk(ctx, b.sr, "restored", backedUp)
	b.must(b.Put(ctx, "/import_raw_vdi", url.Values{"vdi": {into}}, bytes.NewReader(image), backedUp))
	disk := b.open(ctx, into)
	got := make([]byte, backedUp)
	_, err := disk.ReadAt(got, 0)
	b.must(errors.Join(err, disk.Close()))
	if !bytes.Equal(got, image) {
		b.T.Error("the restored disk holds something else")
	}
}
