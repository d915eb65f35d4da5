package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	golibvirt "github.com/digitalocean/go-libvirt"

	"cairn/ci/bench/figure"
	"cairn/ci/bench/host"
	"cairn/image/debian"
)

// config is the command line.
type config struct {
	Doc, Go string
	Rounds  int
}

const (
	diskSize = 10 << 30
	template = "Cairn demo guest"
	machines = 20 // in the list
)

func run(ctx context.Context, cfg config) error {
	begin := time.Now()
	r := &report{Rounds: cfg.Rounds, Load: [2]string{figure.Load(), ""}}
	tree, err := debian.Open(ctx, debian.Config{})
	if err != nil {
		return err
	}
	h, err := host.Start(ctx, cfg.Go)
	if err != nil {
		return err
	}
	b := &bench{Host: h, tree: tree, report: r}
	for _, step := range []func(context.Context) error{b.prepare, b.starts, b.layers, b.lists} {
		if err == nil {
			err = step(ctx)
		}
	}
	if err := errors.Join(err, h.Close()); err != nil {
		return err
	}
	r.Load[1], r.Took = figure.Load(), time.Since(begin)
	return r.publish(cfg.Doc)
}

// bench is one run.
type bench struct {
	*host.Host
	tree   *debian.Tree
	report *report
	sr     string
	vm     string
	vdi    string
}

// prepare makes a repository, and a machine with a disk on it.
func (b *bench) prepare(ctx context.Context) (err error) {
	if b.sr, err = b.Repository(ctx, "bench"); err != nil {
		return err
	}
	original, err := b.First(ctx, "VM.get_by_name_label", template)
	if err != nil {
		return err
	}
	if b.vm, err = b.Ref(ctx, "VM.clone", original, "bench"); err != nil {
		return err
	}
	if err := b.API.Call(ctx, "VM.provision", nil, b.vm); err != nil {
		return err
	}
	if b.vdi, err = b.disk(ctx); err != nil {
		return err
	}
	_, err = b.Ref(ctx, "VBD.create", map[string]any{
		"VM": b.vm, "VDI": b.vdi, "userdevice": "0", "bootable": false, "mode": "RW", "type": "Disk", "unpluggable": true, "empty": false,
		"other_config": map[string]string{}, "qos_algorithm_type": "", "qos_algorithm_params": map[string]string{},
	})
	return err
}

func (b *bench) disk(ctx context.Context) (string, error) { return b.Disk(ctx, b.sr, diskSize) }

// timed measures a piece of work.
func timed(s *series, f func() error) error {
	begin := time.Now()
	err := f()
	*s = append(*s, time.Since(begin))
	return err
}

// starts alternates VM.start with libvirt's own create of the same domain under
// another name. The first of each, for which libvirt probes QEMU, does not count.
func (b *bench) starts(ctx context.Context) error {
	var xml string
	for n := range b.report.Rounds + 1 {
		if err := timed(&b.report.Start, func() error { return b.API.Call(ctx, "VM.start", nil, b.vm, false, false) }); err != nil {
			return err
		}
		if xml == "" {
			var err error
			if xml, err = b.twin(ctx); err != nil {
				return err
			}
		}
		if err := b.API.Call(ctx, "VM.hard_shutdown", nil, b.vm); err != nil {
			return err
		}
		if err := b.create(xml); err != nil {
			return err
		}
		if n == 0 {
			b.report.Start, b.report.Create = nil, nil
		}
	}
	return nil
}

// twinUUID names the domain that libvirt makes by itself.
const twinUUID = "00000000-0000-4000-8000-000000000001"

// twin is the running machine's XML for a domain of another name.
func (b *bench) twin(ctx context.Context) (string, error) {
	uuid, err := b.Ref(ctx, "VM.get_uuid", b.vm)
	if err != nil {
		return "", err
	}
	domains, _, err := b.Libvirt.ConnectListAllDomains(1, 0)
	if err != nil {
		return "", err
	}
	for _, d := range domains {
		if d.Name == uuid {
			text, err := b.Libvirt.DomainGetXMLDesc(d, golibvirt.DomainXMLSecure)
			return strings.ReplaceAll(text, uuid, twinUUID), err
		}
	}
	return "", fmt.Errorf("libvirt knows no domain %s", uuid)
}

func (b *bench) create(xml string) error {
	var d golibvirt.Domain
	err := timed(&b.report.Create, func() (err error) {
		d, err = b.Libvirt.DomainCreateXML(xml, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("libvirt's create: %w", err)
	}
	return b.Libvirt.DomainDestroy(d)
}

// layers alternates snapshot and clone of a disk with qemu-img's overlay. Each round
// has a disk of its own: one disk's chain would end at its limit before the coalesce
// finds a quiet moment.
func (b *bench) layers(ctx context.Context) error {
	dir := b.Path("state/sr/plain")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	base := filepath.Join(dir, "base.qcow2")
	if err := b.image(ctx, "create", "-q", "-f", "qcow2", base, fmt.Sprint(int64(diskSize))); err != nil {
		return err
	}
	for n := range b.report.Rounds {
		vdi, err := b.disk(ctx)
		if err != nil {
			return err
		}
		for _, work := range []struct {
			s      *series
			method string
			args   []any
		}{
			{&b.report.Snapshot, "VDI.snapshot", []any{map[string]string{}}},
			{&b.report.Clone, "VDI.clone", []any{map[string]string{}}},
		} {
			if err := b.layer(ctx, vdi, work.s, work.method, work.args); err != nil {
				return err
			}
		}
		overlay := filepath.Join(dir, fmt.Sprintf("%d.qcow2", n))
		err = timed(&b.report.Overlay, func() error {
			return b.image(ctx, "create", "-q", "-f", "qcow2", "-F", "qcow2", "-b", base, overlay)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// layer makes a copy of a disk and forgets it.
func (b *bench) layer(ctx context.Context, vdi string, s *series, method string, args []any) error {
	var made string
	if err := timed(s, func() error { return b.API.Call(ctx, method, &made, append([]any{vdi}, args...)...) }); err != nil {
		return err
	}
	return b.API.Call(ctx, "VDI.destroy", nil, made)
}

func (b *bench) image(ctx context.Context, args ...string) error {
	cmd := b.tree.Command(ctx, "qemu-img", args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("qemu-img %s: %w: %s", args[0], err, out)
	}
	return nil
}

// lists compares the records of all machines with libvirt's list and XML of as
// many defined domains.
func (b *bench) lists(ctx context.Context) error {
	original, err := b.First(ctx, "VM.get_by_name_label", template)
	if err != nil {
		return err
	}
	for n := range machines {
		if _, err := b.Ref(ctx, "VM.clone", original, fmt.Sprint("listed ", n)); err != nil {
			return err
		}
		if _, err := b.Libvirt.DomainDefineXML(definition(n)); err != nil {
			return err
		}
	}
	for range b.report.Rounds {
		var all map[string]any
		if err := timed(&b.report.Records, func() error { return b.API.Call(ctx, "VM.get_all_records", &all) }); err != nil {
			return err
		}
		b.report.Listed = len(all)
		if err := timed(&b.report.Domains, b.domains); err != nil {
			return err
		}
	}
	return nil
}

func (b *bench) domains() error {
	all, _, err := b.Libvirt.ConnectListAllDomains(1, 0)
	for _, d := range all {
		if err == nil {
			_, err = b.Libvirt.DomainGetXMLDesc(d, 0)
		}
	}
	return err
}

func definition(n int) string {
	return fmt.Sprintf(`<domain type="qemu"><name>listed-%[1]d</name><uuid>00000000-0000-4000-9000-%012[1]d</uuid><memory unit="MiB">256</memory><vcpu>1</vcpu>
<os><type arch="x86_64" machine="pc-q35-10.0">hvm</type></os></domain>`, n)
}
