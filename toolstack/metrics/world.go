package metrics

import (
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// world is what the rows say of this host at one instant.
type world struct {
	snap *db.Snapshot
	host *api.Host             // nil: its row is not there
	pifs map[string]bool       // its interfaces by name; those that are NICs
	srs  map[api.SRRef]*api.SR // attached to it
}

func newWorld(s *db.Snapshot, ref api.HostRef) *world {
	w := &world{snap: s, pifs: map[string]bool{}, srs: map[api.SRRef]*api.SR{}}
	host, err := db.Get(s, ref)
	if err != nil {
		return w
	}
	w.host = host
	for _, p := range host.PIFs {
		if pif, err := db.Get(s, p); err == nil && pif.VLAN < 0 {
			w.pifs[pif.Device] = w.pifs[pif.Device] || pif.Physical
		}
	}
	for _, p := range host.PBDs {
		pbd, err := db.Get(s, p)
		if err != nil || !pbd.CurrentlyAttached {
			continue
		}
		if sr, err := db.Get(s, pbd.SR); err == nil && sr.PhysicalSize > 0 {
			w.srs[pbd.SR] = sr
		}
	}
	return w
}

func (w *world) hasSR(uuid string) bool {
	for _, sr := range w.srs {
		if sr.UUID == uuid {
			return true
		}
	}
	return false
}

// guest is a VM's row, and which of its devices are which.
type guest struct {
	row  *api.VM
	nics map[string]string    // host's end of the cable → number
	srs  map[string]api.SRRef // disk's name → where it is
}

// guest finds a VM; nil where no row is of it.
func (w *world) guest(uuid string) *guest {
	ref, err := db.ByUUID[api.VM](w.snap, uuid)
	if err != nil {
		return nil
	}
	row, err := db.Get(w.snap, ref)
	if err != nil {
		return nil
	}
	g := &guest{row: row, nics: map[string]string{}, srs: map[string]api.SRRef{}}
	for _, v := range row.VIFs {
		if vif, err := db.Get(w.snap, v); err == nil {
			g.nics[hypervisor.TapName(vif.UUID)] = vif.Device
		}
	}
	for _, v := range row.VBDs {
		vbd, err := db.Get(w.snap, v)
		if err != nil || vbd.Device == "" {
			continue
		}
		if vdi, err := db.Get(w.snap, vbd.VDI); err == nil {
			g.srs[diskName(vbd.Device)] = vdi.SR
		}
	}
	return g
}
