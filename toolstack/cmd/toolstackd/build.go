package main

import (
	"crypto/tls"
	"log/slog"
	"os"
	"path/filepath"

	hostconfig "cairn/init/config"
	"cairn/toolstack/alert"
	"cairn/toolstack/alert/mail"
	"cairn/toolstack/api"
	"cairn/toolstack/blob"
	"cairn/toolstack/console"
	"cairn/toolstack/device"
	"cairn/toolstack/event"
	"cairn/toolstack/guest"
	"cairn/toolstack/hypervisor"
	"cairn/toolstack/memory"
	"cairn/toolstack/metrics"
	"cairn/toolstack/metrics/proc"
	"cairn/toolstack/network"
	"cairn/toolstack/secret"
	"cairn/toolstack/session"
	"cairn/toolstack/session/audit"
	"cairn/toolstack/session/external/ldap"
	"cairn/toolstack/session/identity"
	"cairn/toolstack/storage"
	"cairn/toolstack/task"
	"cairn/toolstack/transfer/machine"
	"cairn/toolstack/transfer/share"
	"cairn/toolstack/transfer/volume"
	"cairn/toolstack/vm"
	"cairn/toolstack/wire"
)

// build binds all behaviour.
func (t *toolstack) build(tlsConfig *tls.Config, id *identity.Identity) error {
	log := t.cfg.log
	registry := api.NewRegistry()
	sessions := session.New(session.Config{
		DB: t.db, RootHash: t.host.RootHash, Verify: hostconfig.VerifyPassword, ThisHost: t.host.Ref,
		SetRootPassword: t.host.SetRootPassword, Directories: map[string]session.OpenFunc{ldap.Type: ldap.Open},
		Log: log.With("component", "session"),
	})
	audited, err := audit.New(audit.Config{DB: t.db, Dir: t.cfg.state, Who: sessions.Who, Log: log})
	if err != nil {
		return err
	}
	t.sessions, t.audit = sessions, audited
	t.tasks = task.New(task.Config{
		DB: t.db, ThisHost: t.host.Ref, Who: sessions.Owner, Log: log.With("component", "task"),
	})
	t.networks = network.New(network.Config{DB: t.db, Hostd: t.hostdOf, Log: log.With("component", "network")})
	consoles := t.ttys(log.With("component", "console"))
	t.memory = memory.New(memory.Config{DB: t.db, Sites: t.memories(), Log: log.With("component", "memory")})
	t.alerts = alert.New(t.db)
	t.mail = mail.New(mail.Config{DB: t.db, Hostname: t.host.Hostname, Log: log.With("component", "mail")})
	t.alerts.Notify(t.mail.Notify)
	t.disks = storage.New(storage.Config{
		DB: t.db, Hostd: t.storageOf, Domains: t.domainsOf, Alerts: t.alerts, Tasks: t.tasks, Log: log.With("component", "storage"),
	})
	t.devices = device.New(device.Config{
		DB: t.db, Storage: t.disks, Network: t.networks, Hypervisor: t.hypervisorOf, True: t.ready, Log: log.With("component", "device"),
	})
	t.guests = guest.New(guest.Config{DB: t.db, Ports: t.portsOf, Log: log.With("component", "guest")})
	t.vms = vm.New(vm.Config{
		Guests: t.guests, Memory: t.memory, Devices: t.devices, Disks: t.disks, NVRAM: t.nvram, Alerts: t.alerts, Hostd: t.hostd,
		DB: t.db, Hypervisor: t.hv, Consoles: consoles, Host: t.host, Others: t.others, GuestDir: t.cfg.guests,
		Log: log.With("component", "vm"),
	})
	t.figures = metrics.New(metrics.Config{
		DB: t.db, ThisHost: t.host.Ref, Guests: t.hv, Alerts: t.alerts, Kernel: proc.Root{FS: os.DirFS("/proc")},
		FileSystems: map[string]string{"fs_usage": t.cfg.state, "log_fs_usage": "/var/log"},
		Dir:         filepath.Join(t.cfg.state, "metrics"), Log: log.With("component", "metrics"),
	})
	sessions.Register(registry)
	t.tasks.Register(registry)
	event.New(t.db, sessions.Check).Register(registry)
	t.alerts.Register(registry)
	t.figures.Register(registry)
	secret.Register(registry, t.db)
	blobs, err := blob.New(t.db, filepath.Join(t.cfg.state, "blobs"))
	if err != nil {
		return err
	}
	blobs.Register(registry)
	t.host.Register(registry)
	t.pool.Register(registry)
	t.networks.Register(registry)
	t.disks.Register(registry)
	t.shared = share.New(share.Config{
		DB: t.db, Disks: t.disks, Authorize: sessions.Authorize, Check: sessions.Check, ThisHost: t.host.Ref,
		TLS: tlsConfig, Cert: string(id.HostPEM), Subject: names(t.host)[0], Log: log.With("component", "share"),
	})
	t.shared.Register(registry)
	t.devices.Register(registry)
	t.memory.Register(registry)
	t.vms.Register(registry)
	machines := machine.New(machine.Config{DB: t.db, VMs: t.vms, Disks: t.disks, ThisHost: t.host.Ref, Log: log.With("component", "transfer")})
	machines.Register(registry)
	t.server = wire.NewServer(wire.Config{
		DB: t.db, Registry: registry, Sessions: sessions, Tasks: t.tasks, Log: log.With("component", "api"),
		Authorize: sessions.Authorize, AuthorizeHTTP: audited.Authorize(sessions.AuthorizeHTTP), Observe: audited.Observe,
	})
	audited.Handle(t.server)
	blobs.Handle(t.server)
	machines.Handle(t.server)
	t.consoles.Handle(t.server)
	t.figures.Handle(t.server)
	volume.New(volume.Config{DB: t.db, Disks: t.disks, Drafts: t.vms, Log: log.With("component", "transfer")}).Handle(t.server)
	return nil
}

// hostdOf is the hostd of a host; a simulated pool has one for all.
func (t *toolstack) hostdOf(ref api.HostRef) network.Hostd {
	if ref == t.host.Ref() || t.cfg.pool != nil {
		return t.hostd
	}
	return nil
}

// storageOf is the storage of a host this process speaks for.
func (t *toolstack) storageOf(ref api.HostRef) storage.Hostd {
	if h := t.hostdOf(ref); h != nil {
		return t.hostd
	}
	return nil
}

func (t *toolstack) domainsOf(ref api.HostRef) storage.Domains {
	if h := t.hypervisorOf(ref); h != nil {
		return h
	}
	return nil
}

// ttys opens the consoles' manager. Those of a simulated pool are dialled on demand.
func (t *toolstack) ttys(log *slog.Logger) vm.Consoles {
	if t.cfg.pool == nil {
		t.consoles = console.New(t.db, t.hv, log)
		t.consoles.ServeOnly(func(ref api.HostRef) bool { return ref == t.host.Ref() })
		return t.consoles
	}
	t.consoles = console.New(t.db, t.cfg.pool, log)
	return t.cfg.pool
}

// hypervisorOf is that of a host this process speaks for, nil for any other.
func (t *toolstack) hypervisorOf(ref api.HostRef) hypervisor.Hypervisor {
	if ref == t.host.Ref() {
		return t.hv
	}
	for _, s := range t.others {
		if s.Host.Ref() == ref {
			return s.Hypervisor
		}
	}
	return nil
}

// portsOf are the ports of agents in guests. Simulated guests have none, and rows that
// say what they would tell.
func (t *toolstack) portsOf(ref api.HostRef) guest.Ports {
	if ref == t.host.Ref() && t.cfg.pool == nil {
		return t.hv
	}
	return nil
}

// memories are the hosts whose memory this process accounts for.
func (t *toolstack) memories() []memory.Site {
	sites := []memory.Site{{Host: t.host, Balloons: t.hv}}
	for _, s := range t.others {
		sites = append(sites, memory.Site{Host: s.Host, Balloons: s.Hypervisor})
	}
	return sites
}
