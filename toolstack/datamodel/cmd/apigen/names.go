package main

import (
	"go/token"
	"strings"
	"unicode"
)

// initials are the parts of names that are written in capitals. Parts that hold
// a capital already, such as VCPUs, stay as they are.
var initials = map[string]string{
	"api": "API", "bios": "BIOS", "cbt": "CBT", "cpu": "CPU", "cpus": "CPUs", "crl": "CRL", "csr": "CSR", "dns": "DNS",
	"dr": "DR", "gpu": "GPU", "ha": "HA", "http": "HTTP", "https": "HTTPS", "id": "ID", "ids": "IDs", "igmp": "IGMP", "io": "IO",
	"ip": "IP", "ipv4": "IPv4", "ipv6": "IPv6", "iqn": "IQN", "iscsi": "ISCSI", "mac": "MAC", "mtu": "MTU", "nbd": "NBD",
	"ntp": "NTP", "numa": "NUMA", "os": "OS", "pbd": "PBD", "pci": "PCI", "pif": "PIF", "pvs": "PVS", "rbac": "RBAC",
	"rrd": "RRD", "sdn": "SDN", "sid": "SID", "sm": "SM", "sr": "SR", "sriov": "SRIOV", "ssh": "SSH", "ssl": "SSL",
	"tls": "TLS", "uefi": "UEFI", "url": "URL", "usb": "USB", "uuid": "UUID", "uuids": "UUIDs", "vbd": "VBD", "vdi": "VDI",
	"vdis": "VDIs", "vgpu": "VGPU", "vif": "VIF", "vlan": "VLAN", "vm": "VM", "vmpp": "VMPP", "vms": "VMs", "vmss": "VMSS",
	"vss": "VSS", "vtpm": "VTPM", "vusb": "VUSB", "wlb": "WLB", "xml": "XML",
}

// parts splits a name at everything that is no letter or digit.
func parts(name string) []string {
	return strings.FieldsFunc(name, func(r rune) bool { return !unicode.IsLetter(r) && !unicode.IsDigit(r) })
}

// exported is the Go name of a thing of the description.
func exported(name string) string {
	var b strings.Builder
	for _, p := range parts(name) {
		if up, ok := initials[p]; ok {
			b.WriteString(up)
		} else {
			b.WriteString(strings.ToUpper(p[:1]) + p[1:])
		}
	}
	return b.String()
}

// errorName is the Go name of an error code, which is all capitals.
func errorName(code string) string { return exported(strings.ToLower(code)) }

// local is the Go name of a parameter.
func local(name string) string {
	words := parts(name)
	s := strings.ToLower(words[0]) + exported(strings.Join(words[1:], "_"))
	if token.IsKeyword(s) || s == "c" || s == "string" || s == "error" {
		s += "_"
	}
	return strings.TrimSuffix(s, "_") + map[bool]string{true: "Value"}[strings.HasSuffix(s, "_")]
}
