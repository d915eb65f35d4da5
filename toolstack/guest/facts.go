package guest

import (
	"fmt"
	"maps"
	"strconv"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/guest/qga"
)

// facts are what an agent has told.
type facts struct {
	info qga.Info
	os   qga.OS
	host string
	// networks are those of the machine's own NICs: of the hundreds that a guest may have
	// nothing else is kept.
	networks map[string]string
	disks    []qga.Filesystem
}

// maxAddresses of each kind are shown of one NIC.
const maxAddresses = 16

// windows is how the agent calls that system.
const windows = "mswindows"

// describe writes facts into a record. Of an agent that is gone the addresses are gone,
// too: somebody else may have them by now; what runs in the guest is likely what ran.
func (f facts) describe(g *api.VMGuestMetrics, p Presence) {
	g.Live = p == Present
	if p == Gone {
		g.Networks = map[string]string{}
	}
	if p != Present {
		return
	}
	g.OSVersion = osVersion(f.os)
	g.NetbiosName = present(map[string]string{"host_name": f.host})
	g.PVDriversVersion = driversVersion(f.info.Version)
	g.PVDriversDetected, g.PVDriversUpToDate = true, true
	g.Networks = f.networks
	g.Disks = disks(f.disks)
	g.Other = features(f.info)
	g.CanUseHotplugVBD, g.CanUseHotplugVIF = api.TristateTypeYes, api.TristateTypeYes
}

// present leaves out what is not known.
func present(m map[string]string) map[string]string {
	maps.DeleteFunc(m, func(_, v string) bool { return v == "" })
	return m
}

// osVersion is the guest's system in the words of this API.
func osVersion(o qga.OS) map[string]string {
	name := o.PrettyName
	if name == "" {
		name = o.Name
	}
	v := map[string]string{"name": name, "distro": o.ID, "uname": o.KernelRelease}
	version := o.VersionID
	if o.ID == windows { // whose version is its kernel's, and that a build
		v["distro"], v["uname"], v["build"], version = "windows", "", o.KernelRelease, o.KernelVersion
	}
	v["major"], v["minor"], _ = strings.Cut(version, ".")
	return present(v)
}

// driversVersion reads "10.0.13": there are no drivers of ours in a guest, only its
// agent has a version.
func driversVersion(version string) map[string]string {
	v := map[string]string{"major": "0", "minor": "0", "micro": "0", "build": "0"}
	for i, part := range strings.SplitN(version, ".", 4) {
		n, err := strconv.ParseUint(part, 10, 32)
		if err != nil {
			break
		}
		v[[]string{"major", "minor", "micro", "build"}[i]] = strconv.FormatUint(n, 10)
	}
	return v
}

// networks lists addresses by NIC; devices are the numbers of the machine's by MAC. A
// bridge or bond in the guest has the MAC of one of its NICs, which then has its
// addresses.
func networks(nics []qga.Interface, devices map[string]string) map[string]string {
	seen, m := map[string]bool{}, map[string]string{}
	counts := map[string]int{}
	for _, nic := range nics {
		device, ours := devices[nic.MAC]
		if !ours {
			continue
		}
		for _, a := range nic.Addresses {
			kind := device + "/ipv6/"
			if a.Is4() {
				kind = device + "/ipv4/"
			}
			if seen[kind+a.String()] || counts[kind] == maxAddresses {
				continue
			}
			seen[kind+a.String()] = true
			m[kind+strconv.Itoa(counts[kind])] = a.String()
			counts[kind]++
		}
	}
	for _, device := range devices { // what clients of old look for
		if first, ok := m[device+"/ipv4/0"]; ok {
			m[device+"/ip"] = first
		}
	}
	return m
}

// disks lists file systems. How full they are changes all the time, and is not told.
func disks(all []qga.Filesystem) map[string]string {
	m := map[string]string{}
	for i, f := range all {
		m[fmt.Sprintf("%d/mountpoint", i)], m[fmt.Sprintf("%d/type", i)] = f.Mountpoint, f.Type
		if f.Total > 0 {
			m[fmt.Sprintf("%d/total", i)] = strconv.FormatInt(f.Total, 10)
		}
	}
	return m
}

// features are the words by which clients know what a guest can be asked for.
func features(i qga.Info) map[string]string {
	m := map[string]string{}
	for feature, command := range map[string]string{
		"feature-shutdown": qga.CmdShutdown, "feature-poweroff": qga.CmdShutdown, "feature-reboot": qga.CmdShutdown,
		"feature-quiesce": qga.CmdFreeze,
	} {
		if i.Has(command) {
			m[feature] = "1"
		}
	}
	m["feature-suspend"] = "1" // needs nothing in the guest
	return m
}
