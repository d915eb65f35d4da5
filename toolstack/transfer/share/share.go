// Package share lets clients read disks over the network by NBD: where, under which
// name, and who may.
//
// Disks are served on the addresses of networks that have a purpose for it, with TLS
// first where that is nbd and in clear where it is insecure_nbd. The name of an export
// holds the disk's uuid and a session: what that session may not ask
// (VDI.get_nbd_info), it may not read, and when it ends the connection does. Any disk is
// read only, and held by an operation while it is read.
//
// A Manager may be used by many goroutines and has no state of its own.
package share

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"slices"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/operation"
	"cairn/toolstack/transfer/disk"
	"cairn/toolstack/transfer/nbd"
)

// Port is where disks are served.
const Port = 10809

// Config is what a Manager needs.
type Config struct {
	DB *db.DB
	// Disks opens a disk, to be read or written.
	Disks interface {
		Open(ctx context.Context, vdi api.VDIRef, write bool) (disk.Device, error)
	}
	// Authorize refuses a message that a session may not send.
	Authorize func(session api.SessionRef, msg *api.MessageInfo, args []api.Value) error
	// Check answers SESSION_INVALID unless a session is alive.
	Check func(api.SessionRef) error
	// ThisHost is the host whose addresses are served, with its TLS, of which Cert is
	// what clients are told, and Subject a name in it.
	ThisHost      func() api.HostRef
	TLS           *tls.Config
	Cert, Subject string
	Log           *slog.Logger
}

// Manager serves disks.
type Manager struct{ cfg Config }

// New returns a manager.
func New(c Config) *Manager {
	if c.TLS != nil {
		c.TLS = c.TLS.Clone()
		c.TLS.NextProtos = nil // those are of HTTP
	}
	return &Manager{c}
}

// Register binds VDI.get_nbd_info.
func (m *Manager) Register(r *api.Registry) { api.HandleVDIGetNBDInfo(r, m.info) }

// Serve serves disks until the context ends. It closes the listener.
func (m *Manager) Serve(ctx context.Context, l net.Listener) error {
	s := nbd.Server{Admit: m.admit, Open: m.open, Log: m.cfg.Log}
	return s.Serve(ctx, l)
}

// info tells where a disk can be read: nowhere, if no network is for that.
func (m *Manager) info(c *api.Call, vdi api.VDIRef) ([]*api.VDINBDServerInfo, error) {
	snap := m.cfg.DB.Snapshot()
	disk, err := db.Get(snap, vdi)
	if err != nil {
		return nil, err
	}
	if disk.Type == api.VDITypeCBTMetadata {
		return nil, api.ErrVDIIncompatibleType(vdi.String(), string(disk.Type))
	}
	all := []*api.VDINBDServerInfo{}
	if !operation.Attached(snap, m.cfg.ThisHost(), disk.SR) {
		return all, nil
	}
	for _, address := range m.addresses(snap) {
		all = append(all, &api.VDINBDServerInfo{
			Exportname: exportName(disk.UUID, c.Session), Address: address.String(), Port: Port, Cert: m.cfg.Cert, Subject: m.cfg.Subject,
		})
	}
	return all, nil
}

// addresses are those of this host that disks are served on, in order.
func (m *Manager) addresses(r db.Reader) (all []net.IP) {
	for _, pif := range db.All[api.PIF](r) {
		if pif.Host != m.cfg.ThisHost() || !pif.CurrentlyAttached || purposeOf(r, pif) == "" {
			continue
		}
		for _, text := range append([]string{pif.IP}, pif.IPv6...) {
			text, _, _ = strings.Cut(text, "/")
			if ip := net.ParseIP(text); ip != nil && !ip.IsLinkLocalUnicast() {
				all = append(all, ip)
			}
		}
	}
	slices.SortFunc(all, func(a, b net.IP) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// purposeOf says how disks are served on an interface; "" is not at all.
func purposeOf(r db.Reader, pif *api.PIF) api.NetworkPurpose {
	network, err := db.Get(r, pif.Network)
	if err != nil {
		return ""
	}
	for _, p := range []api.NetworkPurpose{api.NetworkPurposeNBD, api.NetworkPurposeInsecureNBD} {
		if slices.Contains(network.Purpose, p) {
			return p
		}
	}
	return ""
}

// admit sends away who comes over a network that is not for this.
func (m *Manager) admit(conn net.Conn) (*tls.Config, error) {
	local, ok := conn.LocalAddr().(*net.TCPAddr)
	if !ok {
		return nil, fmt.Errorf("%s is no address", conn.LocalAddr())
	}
	snap := m.cfg.DB.Snapshot()
	for _, pif := range db.All[api.PIF](snap) {
		if pif.Host != m.cfg.ThisHost() || !has(pif, local.IP) {
			continue
		}
		switch purposeOf(snap, pif) {
		case api.NetworkPurposeNBD:
			return m.cfg.TLS, m.sealed()
		case api.NetworkPurposeInsecureNBD:
			return nil, nil
		}
	}
	return nil, fmt.Errorf("disks are not served on %s", local.IP)
}

// sealed refuses to serve without TLS what has to have it.
func (m *Manager) sealed() error {
	if m.cfg.TLS == nil {
		return errors.New("there is no certificate")
	}
	return nil
}

func has(pif *api.PIF, ip net.IP) bool {
	return slices.ContainsFunc(append([]string{pif.IP}, pif.IPv6...), func(text string) bool {
		text, _, _ = strings.Cut(text, "/")
		return ip.Equal(net.ParseIP(text))
	})
}

func exportName(uuid string, session api.SessionRef) string {
	return "/" + uuid + "?session_id=" + session.String()
}

// parse reads the name of an export.
func parse(name string) (uuid string, session api.SessionRef, err error) {
	path, query, _ := strings.Cut(name, "?")
	values, err := url.ParseQuery(query)
	uuid, ok := strings.CutPrefix(path, "/")
	if err != nil || !ok || uuid == "" || strings.Contains(uuid, "/") || len(values["session_id"]) != 1 {
		return "", "", errors.New("it is no name of an export") // which may hold a session
	}
	return uuid, api.SessionRef(api.ParseRef(values.Get("session_id"))), nil
}

// open opens the disk that a name means, if its session may read it.
func (m *Manager) open(ctx context.Context, name string) (nbd.Export, error) {
	uuid, session, err := parse(name)
	if err != nil {
		return nbd.Export{}, err
	}
	if err := m.cfg.Check(session); err != nil {
		return nbd.Export{}, errors.New("there is no such session")
	}
	ref, err := db.ByUUID[api.VDI](m.cfg.DB.Snapshot(), uuid)
	if err != nil {
		return nbd.Export{}, err
	}
	args := []api.Value{{Text: ref.String()}}
	if err := m.cfg.Authorize(session, api.FindMessage("VDI.get_nbd_info"), args); err != nil {
		return nbd.Export{}, err
	}
	d, err := m.cfg.Disks.Open(ctx, ref, false)
	if err != nil {
		return nbd.Export{}, fmt.Errorf("open disk %s: %w", uuid, err)
	}
	return nbd.Export{Disk: d, Alive: func() error { return m.cfg.Check(session) }}, nil
}
