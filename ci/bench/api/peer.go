package main

import (
	"context"
	"fmt"
	"os"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"
	"github.com/digitalocean/go-libvirt/socket/dialers"

	"cairn/ci/devhost"
	"cairn/image/debian"
)

// peer is libvirt with as many defined domains as the smaller pool has VMs.
type peer struct {
	Domains    int
	List, Full series // the names alone, and with each one's XML
}

// peerSamples is enough for a list that takes as long as it does.
const peerSamples = 20

func measurePeer(ctx context.Context, cfg config) (*peer, error) {
	tree, err := debian.Open(ctx, debian.Config{})
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "lv")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	say("libvirt: starting")
	daemon, err := devhost.Start(ctx, devhost.Config{Tree: tree.Dir, Dir: dir})
	if err != nil {
		return nil, err
	}
	defer daemon.Close()
	lv := golibvirt.NewWithDialer(dialers.NewLocal(dialers.WithSocket(daemon.Socket())))
	if err := lv.Connect(); err != nil {
		return nil, err
	}
	defer func() { _ = lv.Disconnect() }()
	say("libvirt: defining %d domains", cfg.Peer)
	for i := range cfg.Peer {
		if _, err := lv.DomainDefineXML(definition(i)); err != nil {
			return nil, fmt.Errorf("define: %w", err)
		}
	}
	p := &peer{Domains: cfg.Peer}
	for range peerSamples {
		if err := p.sample(ctx, lv); err != nil {
			return nil, err
		}
	}
	return p, nil
}

func (p *peer) sample(ctx context.Context, lv *golibvirt.Libvirt) error {
	begin := time.Now()
	all, _, err := lv.ConnectListAllDomains(1, 0)
	if err != nil {
		return err
	}
	p.List = append(p.List, time.Since(begin))
	if len(all) != p.Domains {
		return fmt.Errorf("libvirt lists %d domains, not %d", len(all), p.Domains)
	}
	for _, d := range all {
		if _, err := lv.DomainGetXMLDesc(d, 0); err != nil {
			return err
		}
	}
	p.Full = append(p.Full, time.Since(begin))
	return ctx.Err()
}

// definition is a domain as a user of libvirt would have it: a disk and a NIC.
func definition(i int) string {
	return fmt.Sprintf(`<domain type="qemu">
  <name>guest-%[1]d</name>
  <uuid>00000000-0000-4000-8000-%012[1]d</uuid>
  <memory unit="MiB">2048</memory>
  <vcpu>2</vcpu>
  <os><type arch="x86_64" machine="pc-q35-10.0">hvm</type></os>
  <features><acpi/><apic/></features>
  <devices>
    <disk type="file" device="disk">
      <driver name="qemu" type="qcow2"/><source file="/var/lib/libvirt/images/guest-%[1]d.qcow2"/><target dev="vda" bus="virtio"/>
    </disk>
    <interface type="ethernet"><mac address="02:00:00:00:%02[2]x:%02[3]x"/><model type="virtio"/></interface>
    <serial type="pty"/><console type="pty"/>
  </devices>
</domain>`, i, i>>8, i&0xff)
}
