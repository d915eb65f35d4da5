//go:build lab

package labtest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	hostd "cairn/init/hostd/client"

	"cairn/ci/lab"
	"cairn/ci/lab/inside"
	"cairn/ci/lab/life"
	"cairn/toolstack/client"
)

// Files of the image that stand for what guests write; the second is the larger, so
// that it covers the first.
const (
	small = "/usr/bin/qemu-img"
	large = "/usr/lib/cairn/toolstackd"
)

// media is a host with a repository on each of two disks: one its document names,
// and one that a client made.
type media struct {
	life.API
	host  *lab.Host
	hostd *hostd.Client
	ref   string
	disks []*medium
}

// medium is a disk, its repository, and the disks of guests in it.
type medium struct {
	kind, device string
	sr, uuid     string
	disks        map[string]string // uuid: the file of the image it holds
}

// TestStorageOnDisks leads repositories on a booted host's own disks through their
// lives, by the management API: what was written is there at each step, also after
// the power failed and after the host was installed anew.
func TestStorageOnDisks(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 6*limit)
	defer cancel()
	dir := t.TempDir()
	s := &media{API: life.API{T: t}, disks: []*medium{{kind: "ext", device: "/dev/vdb"}, {kind: "lvm", device: "/dev/vdc"}}}
	s.boot(ctx, dir)
	s.begin(ctx)
	for _, m := range s.disks {
		s.write(ctx, m)
		s.copies(ctx, m)
		s.streams(ctx, m)
		s.forget(ctx, m)
		s.full(ctx, m)
	}
	s.holds(ctx)

	s.host.PowerCut()
	s.boot(ctx, dir)
	for _, m := range s.disks {
		m.sr = s.Ref(ctx, "SR.get_by_uuid", m.uuid)
		s.plugged(ctx, m)
	}
	s.holds(ctx)

	powerOff(ctx, t, s.host)
	must(t, os.Remove(filepath.Join(dir, "disk0.qcow2"))) // all that an installation makes
	s.boot(ctx, dir)
	s.found(ctx, s.disks[0])
	s.introduce(ctx, s.disks[1])
	s.holds(ctx)
	for _, m := range s.disks {
		s.destroy(ctx, m)
	}
	powerOff(ctx, t, s.host)
	clean(ctx, t, s.host)
}

// boot powers the host on.
func (s *media) boot(ctx context.Context, dir string) {
	s.T.Helper()
	t := s.T.(*testing.T)
	s.host = boot(ctx, t, func(c *lab.Config) {
		c.Dir, c.Debug = dir, true
		c.Disks = []lab.Disk{{SizeMiB: 1024, Serial: "named"}, {SizeMiB: 1024, Serial: "made"}}
		c.SMBIOSConfig = lab.Document("cairn-lab", password, "storage: {local: {type: ext, device: /dev/vdb}}")
	})
	s.Client, s.hostd = login(ctx, t, s.host), inside.Booted{Host: s.host}.Hostd()
	s.ref = s.First(ctx, "host.get_all")
}

// begin finds the repository the host has made and makes another. A disk that holds
// something is refused.
func (s *media) begin(ctx context.Context) {
	s.T.Helper()
	ext, lvm := s.disks[0], s.disks[1]
	ext.sr = s.DefaultSR(ctx)
	s.plugged(ctx, ext)
	none := map[string]string{}
	for _, taken := range []string{"/dev/vda", ext.device} {
		err := s.Client.Call(ctx, "SR.create", nil, s.ref, map[string]string{"device": taken}, "0", "x", "", "lvm", "user", false, none)
		if !client.IsCode(err, "SR_BACKEND_FAILURE_16") {
			s.T.Errorf("a repository on %s: %v", taken, err)
		}
	}
	lvm.sr = s.Ref(ctx, "SR.create", s.ref, lvm.config(), "0", "made", "", "lvm", "user", false, none)
	for _, m := range s.disks {
		m.uuid, m.disks = s.Text(ctx, "SR.get_uuid", m.sr), map[string]string{}
		s.probed(ctx, m, true)
	}
}

func (m *medium) config() map[string]string { return map[string]string{"device": m.device} }

// plugged waits until a repository is attached, which a start does by itself.
func (s *media) plugged(ctx context.Context, m *medium) {
	s.T.Helper()
	pbd := s.First(ctx, "SR.get_PBDs", m.sr)
	s.Until(ctx, "the repository on "+m.device, []string{"pbd"}, func() (attached bool) {
		s.Call(ctx, &attached, "PBD.get_currently_attached", pbd)
		return attached
	})
}

// probed asserts whether a probe finds the repository, or else a blank disk.
func (s *media) probed(ctx context.Context, m *medium, there bool) {
	s.T.Helper()
	answer := s.Text(ctx, "SR.probe", s.ref, m.config(), m.kind, map[string]string{})
	if strings.Contains(answer, "<UUID>") != there || strings.Contains(answer, m.uuid) != there {
		s.T.Errorf("a probe of %s answers %s", m.device, answer)
	}
	blank, err := s.hostd.Probe(ctx, hostd.RepositoryConfig{Type: m.kind, Config: m.config()})
	if err != nil || len(blank) != 1 || (blank[0].UUID == "") == there {
		s.T.Errorf("hostd finds %+v on %s, %v", blank, m.device, err)
	}
}

// with does something with the path of a disk's volume, as QEMU would open it.
func (s *media) with(ctx context.Context, m *medium, uuid string, f func(path string) error) {
	s.T.Helper()
	name := s.Text(ctx, "VDI.get_location", s.Ref(ctx, "VDI.get_by_uuid", uuid))
	v, err := s.hostd.ActivateVolume(ctx, m.uuid, name)
	if err == nil {
		err = f(v.Path)
		_, off := s.hostd.DeactivateVolume(ctx, m.uuid, name)
		err = errors.Join(err, off)
	}
	if err != nil {
		s.T.Fatalf("%s disk %s: %v", m.kind, uuid, err)
	}
}

func (s *media) run(ctx context.Context, argv ...string) error {
	a, err := s.host.Debug(ctx, "run", argv...)
	if err != nil {
		err = fmt.Errorf("%w: %s", err, a.Output)
	}
	return err
}

// put writes a file of the image to a disk.
func (s *media) put(ctx context.Context, m *medium, uuid, file string) {
	s.T.Helper()
	s.with(ctx, m, uuid, func(path string) error {
		return s.run(ctx, "/usr/bin/qemu-img", "convert", "-n", "-t", "none", "-f", "raw", "-O", "qcow2", file, path)
	})
	m.disks[uuid] = file
}

// holds asserts that each disk holds what was written, and nothing else, and that
// every image is sound.
func (s *media) holds(ctx context.Context) {
	s.T.Helper()
	for _, m := range s.disks {
		for uuid, file := range m.disks {
			s.with(ctx, m, uuid, func(path string) error {
				return s.run(ctx, "/usr/bin/qemu-img", "compare", "-f", "raw", "-F", "qcow2", file, path)
			})
		}
	}
	if n := life.Sound(ctx, s.API, inside.Booted{Host: s.host}); n < 4 {
		s.T.Errorf("%d images were looked at", n)
	}
}

// write makes a disk, writes, grows it, keeps a snapshot and writes again.
func (s *media) write(ctx context.Context, m *medium) {
	s.T.Helper()
	ref, uuid := s.Disk(ctx, m.sr, m.kind+" disk", 64<<20)
	s.put(ctx, m, uuid, small)
	s.Call(ctx, nil, "VDI.resize", ref, 80<<20)
	snapshot := s.Text(ctx, "VDI.get_uuid", s.Ref(ctx, "VDI.snapshot", ref, map[string]string{}))
	m.disks[snapshot] = small
	s.put(ctx, m, uuid, large)
	if size := s.Bytes(ctx, "VDI.get_virtual_size", ref); size != 80<<20 {
		s.T.Errorf("the disk has %d bytes", size)
	}
}

// copies clones both disks, copies the snapshot to the other repository, and
// destroys the clone of the snapshot.
func (s *media) copies(ctx context.Context, m *medium) {
	s.T.Helper()
	other := s.disks[0]
	if m == other {
		other = s.disks[1]
	}
	for uuid, file := range maps.Clone(m.disks) {
		ref := s.Ref(ctx, "VDI.get_by_uuid", uuid)
		clone := s.Ref(ctx, "VDI.clone", ref, map[string]string{})
		if file == large {
			m.disks[s.Text(ctx, "VDI.get_uuid", clone)] = file
			continue
		}
		s.Call(ctx, nil, "VDI.destroy", clone)
		copied := s.Ref(ctx, "VDI.copy", ref, other.sr, life.Null, life.Null)
		other.disks[s.Text(ctx, "VDI.get_uuid", copied)] = file
	}
}

// streams brings a disk out into a file of the host's and back into another disk, as its
// root does, by xe.
func (s *media) streams(ctx context.Context, m *medium) {
	s.T.Helper()
	const file = "/run/out.raw"
	_, into := s.Disk(ctx, m.sr, m.kind+" disk", 80<<20)
	err := s.run(ctx, "/usr/bin/xe", "vdi-export", "uuid="+m.holding(small), "filename="+file)
	if err == nil {
		err = s.run(ctx, "/usr/bin/xe", "vdi-import", "uuid="+into, "filename="+file)
	}
	must(s.T.(*testing.T), errors.Join(err, s.run(ctx, "/usr/bin/rm", file)))
	m.disks[into] = small
}

// forget takes a repository out of the database and brings it back.
func (s *media) forget(ctx context.Context, m *medium) {
	s.T.Helper()
	pbd := s.First(ctx, "SR.get_PBDs", m.sr)
	s.Call(ctx, nil, "PBD.unplug", pbd)
	s.Call(ctx, nil, "PBD.plug", pbd)
	s.Call(ctx, nil, "PBD.unplug", pbd)
	s.Call(ctx, nil, "SR.forget", m.sr)
	s.introduce(ctx, m)
}

// introduce tells the database of a repository that is on its disk: all its disks
// are back, by uuid and name.
func (s *media) introduce(ctx context.Context, m *medium) {
	s.T.Helper()
	s.probed(ctx, m, true)
	m.sr = s.Ref(ctx, "SR.introduce", m.uuid, "again", "", m.kind, "user", false, map[string]string{})
	pbd := s.Ref(ctx, "PBD.create", map[string]any{"host": s.ref, "SR": m.sr, "device_config": m.config(), "other_config": map[string]string{}})
	s.Call(ctx, nil, "PBD.plug", pbd)
	s.rows(ctx, m)
}

func (s *media) rows(ctx context.Context, m *medium) {
	s.T.Helper()
	for uuid := range m.disks {
		ref := s.Ref(ctx, "VDI.get_by_uuid", uuid)
		if name := s.Text(ctx, "VDI.get_name_label", ref); !strings.HasSuffix(name, " disk") || s.Text(ctx, "VDI.get_SR", ref) != m.sr {
			s.T.Errorf("disk %s came back as %q", uuid, name)
		}
	}
}

// full: what does not fit is refused, and told. A repository that is thin must be
// filled for it.
func (s *media) full(ctx context.Context, m *medium) {
	s.T.Helper()
	refused := func() error { _, err := s.NewDisk(ctx, m.sr, "large", 2<<30); return err }
	if m.kind == "ext" {
		ballast := "/run/sr-mount/" + m.uuid + "/ballast"
		now, err := s.hostd.Repository(ctx, m.uuid)
		must(s.T.(*testing.T), err)
		size := strconv.FormatInt((now.Free-8<<20)&^0xfffff, 10)
		must(s.T.(*testing.T), s.run(ctx, "/usr/bin/qemu-img", "create", "-q", "-f", "raw", "-o", "preallocation=falloc", ballast, size))
		defer s.run(ctx, "/usr/bin/rm", ballast)
		refused = func() error {
			large := s.Ref(ctx, "VDI.get_by_uuid", m.holding(large))
			return s.Client.Call(ctx, "VDI.copy", nil, large, m.sr, life.Null, life.Null)
		}
	}
	var before, after []string
	s.Call(ctx, &before, "SR.get_VDIs", m.sr)
	if err := refused(); !client.IsCode(err, "SR_FULL") {
		s.T.Errorf("what does not fit in a %s repository: %v", m.kind, err)
	}
	s.Call(ctx, &after, "SR.get_VDIs", m.sr)
	if len(before) != len(after) {
		s.T.Errorf("%d disks became %d", len(before), len(after))
	}
	if n := s.Alerts(ctx, "SM_GC_NO_SPACE", m.uuid); n != 1 {
		s.T.Errorf("%d alerts of a full %s repository, want one", n, m.kind)
	}
}

// holding is a disk that holds a file.
func (m *medium) holding(file string) string {
	for uuid, f := range m.disks {
		if f == file {
			return uuid
		}
	}
	return ""
}

// found: the host that was installed anew has the repository its document names, as
// it was.
func (s *media) found(ctx context.Context, m *medium) {
	s.T.Helper()
	m.sr = s.DefaultSR(ctx)
	if uuid := s.Text(ctx, "SR.get_uuid", m.sr); uuid != m.uuid {
		s.T.Errorf("repository %s became %s", m.uuid, uuid)
	}
	s.plugged(ctx, m)
	s.Call(ctx, nil, "SR.scan", m.sr)
	s.rows(ctx, m)
}

// destroy leaves the disk blank.
func (s *media) destroy(ctx context.Context, m *medium) {
	s.T.Helper()
	var all map[string]struct {
		SR      string
		Managed bool
	}
	s.Call(ctx, &all, "VDI.get_all_records")
	for vdi, row := range all {
		if row.SR == m.sr && row.Managed {
			s.Call(ctx, nil, "VDI.destroy", vdi)
		}
	}
	s.Empty(ctx, m.sr)
	s.Call(ctx, nil, "PBD.unplug", s.First(ctx, "SR.get_PBDs", m.sr))
	s.Call(ctx, nil, "SR.destroy", m.sr)
	s.probed(ctx, m, false)
}
