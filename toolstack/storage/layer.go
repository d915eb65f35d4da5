package storage

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// Keys of a VDI's sm_config. Clients and recovery guides know the first ones.
const (
	parentKey = "vhd-parent"
	formatKey = "image-format"
	hostKey   = "host_" // and a host's reference: RW or RO
	// stateKey says what a row is about whose volume is not simply there.
	stateKey = "cairn:state"
	// layerKey marks rows of layers that are nobody's disk. Only they are merged or
	// removed when nothing is based on them: managed=false alone does not say so.
	layerKey = "cairn:layer"
	// sinceKey, of a disk or a snapshot, is the uuid of the snapshot since which its
	// changes are known; logKey names the logs that hold them, in hostd's keeping. What
	// they do not hold is told by its top volume, while it is nobody's but the disk's, and
	// by the volumes whose rows name it in owedKey: see changed.go.
	sinceKey = "cairn:since"
	logKey   = "cairn:log"
	owedKey  = "cairn:owed"
	// diskKey, of a scratch layer, is the uuid of the disk it is for.
	diskKey = "cairn:disk"
)

// Values of stateKey.
const (
	// stateMaking: the volume is about to be made. After a crash it is garbage.
	stateMaking = "making"
	// stateSwitching: the volume is an overlay that a running domain is about to be
	// switched to, or has been. The disk is named by vhd-parent.
	stateSwitching = "switching"
	// stateScratch: what a disk with on_boot=reset forgets when it is detached.
	stateScratch = "scratch"
	// stateGarbage: the volume is to be removed, and the row after it.
	stateGarbage = "garbage"
)

const (
	readWrite = "RW"
	readOnly  = "RO"
)

// amend changes one key of a map that others may hold; "" removes it.
func amend(old map[string]string, key, value string) map[string]string {
	c := maps.Clone(old)
	if c == nil {
		c = map[string]string{}
	}
	if c[key] = value; value == "" {
		delete(c, key)
	}
	return c
}

// users are the hosts that have a disk attached.
func users(disk *api.VDI) map[api.HostRef]string {
	all := map[api.HostRef]string{}
	for key, mode := range disk.SMConfig {
		if ref, ok := strings.CutPrefix(key, hostKey); ok {
			all[api.HostRef(ref)] = mode
		}
	}
	return all
}

// parent is the row of the layer beneath; ok is false at the bottom.
func parent(r db.Reader, disk *api.VDI) (api.VDIRef, *api.VDI, bool) {
	uuid := disk.SMConfig[parentKey]
	if uuid == "" {
		return "", nil, false
	}
	ref, err := db.ByUUID[api.VDI](r, uuid)
	if err != nil {
		return "", nil, false
	}
	p, err := db.Get(r, ref)
	return ref, p, err == nil && p.SR == disk.SR
}

// chain is a disk's layers from the top down.
func chain(r db.Reader, disk *api.VDI) ([]*api.VDI, error) {
	layers := []*api.VDI{disk}
	for disk.SMConfig[parentKey] != "" {
		_, p, ok := parent(r, disk)
		if !ok || len(layers) > maxFound {
			return nil, backend(backendVDIUnavailable, "The VDI is not available [opterr=layer "+disk.SMConfig[parentKey]+" is missing]")
		}
		layers, disk = append(layers, p), p
	}
	return layers, nil
}

// disks are the rows of a repository's volumes, as they were before a transaction.
func disks(r db.Reader, sr api.SRRef) iter.Seq2[api.VDIRef, *api.VDI] {
	return func(yield func(api.VDIRef, *api.VDI) bool) {
		s, err := db.Get(r, sr)
		if err != nil {
			return
		}
		for _, ref := range s.VDIs {
			if v, err := db.Get(r, ref); err == nil && !yield(ref, v) {
				return
			}
		}
	}
}

// above are the rows of layers on top of a row's.
func above(r db.Reader, disk *api.VDI) map[api.VDIRef]*api.VDI {
	all := map[api.VDIRef]*api.VDI{}
	for ref, v := range disks(r, disk.SR) {
		if v.SMConfig[parentKey] == disk.UUID {
			all[ref] = v
		}
	}
	return all
}

// children are those above that have content, or may have.
func children(r db.Reader, disk *api.VDI) map[api.VDIRef]*api.VDI {
	all := above(r, disk)
	maps.DeleteFunc(all, func(_ api.VDIRef, v *api.VDI) bool {
		return v.SMConfig[stateKey] == stateMaking || v.SMConfig[stateKey] == stateGarbage
	})
	return all
}

// adopt gives the layers above one row to another.
func adopt(tx *db.Tx, from *api.VDI, to string) error {
	for ref := range above(tx, from) {
		v, err := db.Edit(tx, ref)
		if err != nil {
			return err
		}
		v.SMConfig = amend(v.SMConfig, parentKey, to)
	}
	return nil
}

// hide makes a hidden row for a layer of a disk.
func hide(disk *api.VDI, state string) *api.VDI {
	h := api.NewVDI()
	h.UUID, h.SR, h.Location, h.Type = api.NewUUID(), disk.SR, disk.Location, disk.Type
	h.NameLabel = "base copy"
	h.VirtualSize, h.PhysicalUtilisation = disk.VirtualSize, disk.PhysicalUtilisation
	h.SMConfig = map[string]string{layerKey: "hidden"}
	for _, key := range []string{parentKey, formatKey} {
		if v := disk.SMConfig[key]; v != "" {
			h.SMConfig[key] = v
		}
	}
	if state != "" {
		h.SMConfig[stateKey] = state
	}
	return h
}

// source describes a disk's layers to the hypervisor, which opens these and no other:
// what the volumes say they are based on must be among them. It may be one further
// down, when a merge was interrupted.
func (m *Manager) source(ctx context.Context, h Hostd, sr string, layers []*api.VDI) (*hypervisor.Source, error) {
	var top, last *hypervisor.Source
	for i, layer := range layers {
		v, err := h.Volume(ctx, sr, layer.Location)
		if err != nil {
			return nil, err
		}
		below := slices.ContainsFunc(layers[i+1:], func(l *api.VDI) bool { return l.Location == v.Backing })
		if (v.Backing != "" || i+1 < len(layers)) && !below {
			return nil, backend(backendVDIUnavailable, fmt.Sprintf("The VDI is not available [opterr=volume %s is based on %q, of which nothing is known]", v.Name, v.Backing))
		}
		s := sourceOf(v)
		if top == nil {
			top = s
		} else {
			last.Backing = s
		}
		last = s
	}
	return top, nil
}

func sourceOf(v client.Volume) *hypervisor.Source {
	return &hypervisor.Source{Path: v.Path, Format: hypervisor.Format(v.Format), Block: v.Block}
}

// note is what is kept with a volume, from which rows can be made again when the
// database is lost.
type note struct {
	UUID        string `json:"uuid"`
	Name        string `json:"name,omitempty"`
	Description string `json:"description,omitempty"`
	Type        string `json:"type,omitempty"`
	SnapshotOf  string `json:"snapshot_of,omitempty"`
	Hidden      bool   `json:"hidden,omitempty"`
	// Making: nobody has written to the volume yet.
	Making bool `json:"making,omitempty"`
}

const makingNote = `{"uuid":"","making":true}`

func noteOf(r db.Reader, disk *api.VDI) string {
	n := note{UUID: disk.UUID, Name: disk.NameLabel, Description: disk.NameDescription, Type: string(disk.Type), Hidden: !disk.Managed}
	if of, err := db.Get(r, disk.SnapshotOf); disk.IsASnapshot && err == nil {
		n.SnapshotOf = of.UUID
	}
	text, err := json.Marshal(n)
	if err == nil && len(text) > client.MaxNote { // long names
		n.Name, n.Description = "", ""
		text, err = json.Marshal(n)
	}
	if err != nil {
		return ""
	}
	return string(text)
}

// label writes what rows say to their volumes. It is for the day the database is
// lost, so a failure is no more than a line in the log.
func (m *Manager) label(ctx context.Context, h Hostd, sr string, refs ...api.VDIRef) {
	snap := m.cfg.DB.Snapshot()
	for _, ref := range refs {
		disk, err := db.Get(snap, ref)
		if err != nil || disk.Type == api.VDITypeCBTMetadata {
			continue
		}
		if err := h.NoteVolume(ctx, sr, disk.Location, noteOf(snap, disk)); err != nil {
			m.cfg.Log.Warn("volume-note", "vdi", disk.UUID, "err", err)
		}
	}
}

// repository is where a disk is and who can reach it.
type repository struct {
	ref   api.SRRef
	uuid  string
	kind  string
	host  api.HostRef
	hostd Hostd
}

// reach finds a host that has a repository attached and that this process speaks
// for; a host that is given comes first.
func (m *Manager) reach(r db.Reader, ref api.SRRef, wish api.HostRef) (repository, error) {
	sr, err := db.Get(r, ref)
	if err != nil {
		return repository{}, err
	}
	at := repository{ref: ref, uuid: sr.UUID, kind: sr.Type}
	for _, p := range sr.PBDs {
		pbd, err := db.Get(r, p)
		if err != nil || !pbd.CurrentlyAttached || !wish.IsNull() && pbd.Host != wish {
			continue
		}
		if h := m.cfg.Hostd(pbd.Host); h != nil {
			at.host, at.hostd = pbd.Host, h
			return at, nil
		}
	}
	return at, api.ErrSRNotAttached(ref.String())
}

func (r repository) String() string { return fmt.Sprintf("%s repository %s", r.kind, r.uuid) }
