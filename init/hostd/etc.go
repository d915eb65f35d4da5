package hostd

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"cairn/init/config"
	"cairn/init/network"
)

// file is a generated file below /etc or /run.
type file struct {
	path    string
	content string
}

// etcFiles renders what the document and the state of the network say.
func etcFiles(p Paths, doc config.Document, net network.Status) []file {
	return []file{
		{filepath.Join(p.Etc, "hostname"), doc.Hostname + "\n"},
		{filepath.Join(p.Etc, "hosts"), hosts(doc.Hostname, net.Domain, net.Address)},
		{filepath.Join(p.Etc, "resolv.conf"), resolvConf(net.DNS, net.Domain)},
		{filepath.Join(p.Etc, "chrony/chrony.conf"), chronyConf(timeSources(p))},
		{filepath.Join(timeSources(p), "cairn.sources"), chronySources(doc, net.NTP)},
	}
}

// hosts gives the host's own name an address even without DNS; before there is
// one, Debian's stand-in for it.
func hosts(name, domain string, address netip.Prefix) string {
	own := "127.0.1.1"
	if address.IsValid() {
		own = address.Addr().String()
	}
	short, _, dotted := strings.Cut(name, ".")
	names := name
	switch {
	case dotted:
		names += " " + short
	case domain != "":
		names = name + "." + domain + " " + name
	}
	return "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n" + own + " " + names + "\n"
}

func resolvConf(dns []netip.Addr, domain string) string {
	var b strings.Builder
	if domain != "" {
		fmt.Fprintf(&b, "search %s\n", domain)
	}
	for _, a := range dns[:min(len(dns), 3)] { // the C library reads three
		fmt.Fprintf(&b, "nameserver %s\n", a)
	}
	return b.String()
}

// chronyConf lets the clock jump in the first updates only: guests and leases
// do not like a clock that jumps later.
func chronyConf(sourceDir string) string {
	return "sourcedir " + sourceDir + "\ndriftfile /var/lib/chrony/drift\nmakestep 1 3\nrtcsync\ncmdport 0\n"
}

// timeSources is where chronyd looks for servers: in a directory, as it reads
// that again while it runs and its own file never.
func timeSources(p Paths) string { return filepath.Join(p.Run, "chrony") }

// chronySources are the time servers the document names, else the lease's.
func chronySources(doc config.Document, ntp []netip.Addr) string {
	servers := doc.NTP
	if len(servers) == 0 {
		servers = texts(ntp)
	}
	var b strings.Builder
	for _, s := range servers {
		fmt.Fprintf(&b, "server %s iburst\n", s)
	}
	return b.String()
}

// generate brings the files of /etc and the kernel's host name up to date. It
// is called at start, when the document changes, and when the network does.
func (h *Host) generate() {
	h.keeper.etc.Lock()
	defer h.keeper.etc.Unlock()
	doc := h.keeper.get().Document
	var status network.Status
	if h.network != nil {
		status = h.network.Status()
	}
	if len(status.DNS) == 0 {
		status.DNS = doc.Management.DNS
	}
	changed, err := writeFiles(etcFiles(h.Paths, doc, status))
	if err != nil {
		h.Log.Error("etc-failed", "err", err)
	}
	if err := h.System.SetHostname(doc.Hostname); err != nil {
		h.Log.Error("hostname-failed", "err", err)
	}
	if h.network != nil && slices.ContainsFunc(changed, func(p string) bool { return strings.HasSuffix(p, ".sources") }) {
		// Without chronyd running there is nobody to tell; it reads them itself.
		if err := h.System.ReloadTime(); err != nil {
			h.Log.Debug("time-not-reloaded", "err", err)
		}
	}
}

// writeFiles writes those that differ and returns their paths. Each is replaced
// by a rename, so that no reader sees half of one.
func writeFiles(files []file) (changed []string, err error) {
	for _, f := range files {
		old, rerr := os.ReadFile(f.path)
		if rerr == nil && bytes.Equal(old, []byte(f.content)) {
			continue
		}
		if err := writeFile(f); err != nil {
			return changed, err
		}
		changed = append(changed, f.path)
	}
	return changed, nil
}

func writeFile(f file) error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return err
	}
	temp := f.path + ".new"
	if err := os.WriteFile(temp, []byte(f.content), 0o644); err != nil {
		return err
	}
	return os.Rename(temp, f.path)
}
