package ovf

import (
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
)

// What is written, with the prefixes that readers are used to. The fields of an item are
// in the order of the alphabet, which the schema asks for.
type (
	outEnvelope struct {
		XMLName xml.Name    `xml:"Envelope"`
		Spaces  []xml.Attr  `xml:",any,attr"`
		Files   []outFile   `xml:"References>File"`
		Disks   outDisks    `xml:"DiskSection"`
		Nets    outNets     `xml:"NetworkSection"`
		Systems []outSystem `xml:"VirtualSystem"`
	}
	outFile struct {
		Href string `xml:"ovf:href,attr"`
		ID   string `xml:"ovf:id,attr"`
		Size int64  `xml:"ovf:size,attr"`
	}
	outDisks struct {
		Info  string
		Disks []outDisk `xml:"Disk"`
	}
	outDisk struct {
		Capacity int64  `xml:"ovf:capacity,attr"`
		Units    string `xml:"ovf:capacityAllocationUnits,attr"`
		ID       string `xml:"ovf:diskId,attr"`
		File     string `xml:"ovf:fileRef,attr"`
		Format   string `xml:"ovf:format,attr"`
	}
	outNets struct {
		Info string
		Nets []outNet `xml:"Network"`
	}
	outNet struct {
		Name        string `xml:"ovf:name,attr"`
		Description string
	}
	outSystem struct {
		ID         string `xml:"ovf:id,attr"`
		Info, Name string
		Annotation *outAnnotation `xml:"AnnotationSection"`
		OS         outOS          `xml:"OperatingSystemSection"`
		Hardware   outHardware    `xml:"VirtualHardwareSection"`
	}
	outAnnotation struct{ Info, Annotation string }
	outOS         struct {
		ID   int    `xml:"ovf:id,attr"`
		Type string `xml:"vmw:osType,attr"`
		Info string
		Text string `xml:"Description"`
	}
	outHardware struct {
		Info   string
		System struct {
			Name       string `xml:"vssd:ElementName"`
			InstanceID int    `xml:"vssd:InstanceID"`
			Identifier string `xml:"vssd:VirtualSystemIdentifier"`
			Type       string `xml:"vssd:VirtualSystemType"`
		}
		Items    []outItem `xml:"Item"`
		Config   []outPair `xml:"vmw:Config"`
		Platform []ownPair `xml:"cairn:Platform"`
	}
	outPair struct {
		Required bool   `xml:"ovf:required,attr"`
		Key      string `xml:"vmw:key,attr"`
		Value    string `xml:"vmw:value,attr"`
	}
	ownPair struct {
		Required bool   `xml:"ovf:required,attr"`
		Key      string `xml:"cairn:key,attr"`
		Value    string `xml:"cairn:value,attr"`
	}
	outItem struct {
		Address   string `xml:"rasd:Address,omitempty"`
		OnParent  string `xml:"rasd:AddressOnParent,omitempty"`
		Units     string `xml:"rasd:AllocationUnits,omitempty"`
		Automatic string `xml:"rasd:AutomaticAllocation,omitempty"`
		Caption   string `xml:"rasd:Caption"`
		Network   string `xml:"rasd:Connection,omitempty"`
		Name      string `xml:"rasd:ElementName"`
		Host      string `xml:"rasd:HostResource,omitempty"`
		ID        int    `xml:"rasd:InstanceID"`
		Parent    int    `xml:"rasd:Parent,omitempty"`
		SubType   string `xml:"rasd:ResourceSubType,omitempty"`
		Type      string `xml:"rasd:ResourceType"`
		Quantity  int64  `xml:"rasd:VirtualQuantity,omitempty"`
		Cores     *cores `xml:"vmw:CoresPerSocket"`
	}
	cores struct {
		Required bool  `xml:"ovf:required,attr"`
		N        int64 `xml:",chardata"`
	}
)

// spaces are the names that prefixes stand for.
var spaces = [][2]string{
	{"xmlns", "http://schemas.dmtf.org/ovf/envelope/1"},
	{"xmlns:cairn", "urn:cairn:ovf"},
	{"xmlns:ovf", "http://schemas.dmtf.org/ovf/envelope/1"},
	{"xmlns:rasd", "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData"},
	{"xmlns:vmw", "http://www.vmware.com/schema/ovf"},
	{"xmlns:vssd", "http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_VirtualSystemSettingData"},
}

// formatVMDK is what the images are that are written.
const formatVMDK = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"

// Append writes a descriptor of disks in VMDKs.
func (d *Descriptor) Append(b []byte) ([]byte, error) {
	e := outEnvelope{Disks: outDisks{Info: "Disks"}, Nets: outNets{Info: "Networks"}}
	for _, s := range spaces {
		e.Spaces = append(e.Spaces, xml.Attr{Name: xml.Name{Local: s[0]}, Value: s[1]})
	}
	for _, f := range d.Files {
		e.Files = append(e.Files, outFile{f.Name, f.ID, f.Size})
	}
	for _, disk := range d.Disks {
		e.Disks.Disks = append(e.Disks.Disks, outDisk{disk.Capacity, "byte", disk.ID, disk.File, formatVMDK})
	}
	for _, n := range d.Networks {
		e.Nets.Nets = append(e.Nets.Nets, outNet{n, "The network " + n})
	}
	for _, s := range d.Systems {
		e.Systems = append(e.Systems, s.out())
	}
	text, err := xml.MarshalIndent(e, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("descriptor: %w", err)
	}
	return append(append(append(b, xml.Header...), text...), '\n'), nil
}

func (s System) out() outSystem {
	o := outSystem{ID: s.ID, Info: "A virtual machine", Name: s.Name}
	if s.Description != "" {
		o.Annotation = &outAnnotation{"A description", s.Description}
	}
	o.OS = outOS{s.Guest.ID, s.Guest.Label, "The operating system", s.Guest.Text}
	h := &o.Hardware
	h.Info = "The hardware"
	h.System.Name, h.System.Identifier, h.System.Type = "Virtual Hardware Family", s.Name, "vmx-11"
	h.Items = s.items()
	firmware := "bios"
	if s.UEFI {
		firmware = "efi"
	}
	h.Config = []outPair{{Key: "firmware", Value: firmware}}
	if s.SecureBoot {
		h.Config = append(h.Config, outPair{Key: "bootOptions.efiSecureBootEnabled", Value: "true"})
	}
	for _, key := range slices.Sorted(maps.Keys(s.Platform)) {
		h.Platform = append(h.Platform, ownPair{Key: key, Value: s.Platform[key]})
	}
	return o
}
