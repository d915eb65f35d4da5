package ovf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"math"
	"path"
	"strconv"
	"strings"

	"cairn/toolstack/transfer/archive"
)

// Bounds of a descriptor. Those of large appliances have some thousand elements, most of
// which are settings that nobody here asks for.
const (
	maxDescriptor = 4 << 20
	maxElements   = 1 << 16
	maxDepth      = 64
	maxFiles      = 1 << 11 // and disks
	maxItems      = 1 << 12 // of one system
)

// What of the XML is read. Prefixes are of no account.
type (
	envelope struct {
		XMLName xml.Name
		Files   []struct {
			ID          string `xml:"id,attr"`
			Href        string `xml:"href,attr"`
			Size        string `xml:"size,attr"`
			Compression string `xml:"compression,attr"`
			ChunkSize   string `xml:"chunkSize,attr"`
		} `xml:"References>File"`
		Disks []struct {
			ID       string `xml:"diskId,attr"`
			File     string `xml:"fileRef,attr"`
			Parent   string `xml:"parentRef,attr"`
			Format   string `xml:"format,attr"`
			Capacity string `xml:"capacity,attr"`
			Units    string `xml:"capacityAllocationUnits,attr"`
		} `xml:"DiskSection>Disk"`
		Networks []struct {
			Name string `xml:"name,attr"`
		} `xml:"NetworkSection>Network"`
		Configurations []struct {
			ID      string `xml:"id,attr"`
			Default string `xml:"default,attr"`
		} `xml:"DeploymentOptionSection>Configuration"`
		collection
	}
	collection struct {
		Systems     []system     `xml:"VirtualSystem"`
		Collections []collection `xml:"VirtualSystemCollection"`
	}
	system struct {
		ID         string `xml:"id,attr"`
		Name       string `xml:"Name"`
		Annotation string `xml:"AnnotationSection>Annotation"`
		OS         struct {
			ID   string `xml:"id,attr"`
			Type string `xml:"osType,attr"`
			Text string `xml:"Description"`
		} `xml:"OperatingSystemSection"`
		Hardware []hardware `xml:"VirtualHardwareSection"`
		// VirtualBox says this elsewhere.
		Firmware struct {
			Type string `xml:"type,attr"`
		} `xml:"Machine>Hardware>Firmware"`
	}
	hardware struct {
		Items    []item `xml:"Item"`
		Storage  []item `xml:"StorageItem"`
		Ethernet []item `xml:"EthernetPortItem"`
		Config   []pair `xml:"Config"`
		Extra    []pair `xml:"ExtraConfig"`
		Platform []pair `xml:"Platform"`
		// XenCenter's, of a list of settings each.
		Other []struct {
			Name  string `xml:"Name,attr"`
			Value string `xml:"Value"`
		} `xml:"VirtualSystemOtherConfigurationData"`
	}
	pair struct {
		Key   string `xml:"key,attr"`
		Value string `xml:"value,attr"`
	}
	item struct {
		Configuration string   `xml:"configuration,attr"`
		Bound         string   `xml:"bound,attr"`
		Address       string   `xml:"Address"`
		OnParent      string   `xml:"AddressOnParent"`
		Units         string   `xml:"AllocationUnits"`
		Connection    []string `xml:"Connection"`
		HostResource  []string `xml:"HostResource"`
		InstanceID    string   `xml:"InstanceID"`
		Parent        string   `xml:"Parent"`
		SubType       string   `xml:"ResourceSubType"`
		Type          string   `xml:"ResourceType"`
		Quantity      string   `xml:"VirtualQuantity"`
		Cores         string   `xml:"CoresPerSocket"`
	}
)

// Parse reads a descriptor. It refuses with an error of archive.ErrFormat.
func Parse(b []byte) (*Descriptor, error) {
	var e envelope
	err := xml.NewTokenDecoder(&guard{d: xml.NewDecoder(bytes.NewReader(b)), left: maxElements}).Decode(&e)
	switch {
	case err != nil:
		return nil, archive.Malformed("the descriptor: %v", err)
	case e.XMLName.Local != "Envelope":
		return nil, archive.Malformed("the descriptor is a <%.80s>", e.XMLName.Local)
	case len(e.Files) > maxFiles || len(e.Disks) > maxFiles:
		return nil, archive.Malformed("%d files, %d disks", len(e.Files), len(e.Disks))
	}
	d := &Descriptor{}
	for _, n := range e.Networks {
		d.Networks = append(d.Networks, n.Name)
	}
	if err := d.files(&e); err != nil {
		return nil, err
	}
	if err := d.disks(&e); err != nil {
		return nil, err
	}
	return d, d.systems(e.collection, e.chosen())
}

// guard bounds what an XML decoder is fed with.
type guard struct {
	d           *xml.Decoder
	depth, left int
}

// Token implements xml.TokenReader.
func (g *guard) Token() (xml.Token, error) {
	t, err := g.d.RawToken()
	switch t.(type) {
	case xml.Directive:
		return nil, errors.New("document types are not accepted")
	case xml.StartElement:
		g.depth++
		g.left--
	case xml.EndElement:
		g.depth--
	}
	if g.depth > maxDepth || g.left < 0 {
		return nil, errors.New("more elements than anybody needs")
	}
	return t, err
}

func (d *Descriptor) files(e *envelope) error {
	ids, names := map[string]bool{}, map[string]bool{}
	for _, f := range e.Files {
		name, err := plain(f.Href)
		if err != nil {
			return err
		}
		size := int64(Unknown)
		if f.Size != "" {
			if size, err = number("size of "+name, f.Size); err != nil {
				return err
			}
		}
		switch {
		case ids[f.ID] || names[name]:
			return archive.Malformed("two files %.80q, %.80q", f.ID, name)
		case f.Compression != "" && f.Compression != "identity":
			return archive.Malformed("%.80q is packed with %.40q, which is not read", name, f.Compression)
		case f.ChunkSize != "":
			return archive.Malformed("%.80q is cut into files, which is not read", name)
		}
		ids[f.ID], names[name] = true, true
		d.Files = append(d.Files, File{ID: f.ID, Name: name, Size: size})
	}
	return nil
}

func (d *Descriptor) file(id string) (File, bool) {
	for _, f := range d.Files {
		if f.ID == id {
			return f, true
		}
	}
	return File{}, false
}

func (d *Descriptor) disks(e *envelope) error {
	ids, used := map[string]bool{}, map[string]bool{}
	for _, from := range e.Disks {
		unit, err := unitOf(from.Units, 1)
		if err != nil {
			return err
		}
		capacity, err := quantity("capacity of "+from.ID, from.Capacity, unit)
		if err != nil {
			return err
		}
		disk := Disk{ID: from.ID, File: from.File, Capacity: capacity}
		file, ok := d.file(from.File)
		switch {
		case from.ID == "" || ids[from.ID]:
			return archive.Malformed("two disks %.80q", from.ID)
		case from.Parent != "":
			return archive.Malformed("the disk %.80q is based on another", from.ID)
		case from.File != "" && !ok:
			return archive.Malformed("the disk %.80q is in a file %.80q, of which nothing is said", from.ID, from.File)
		case from.File != "" && used[from.File]:
			return archive.Malformed("two disks are in the file %.80q", file.Name)
		case capacity == 0:
			return archive.Malformed("the disk %.80q is empty", from.ID)
		}
		ids[from.ID], used[from.File] = true, true
		if from.File != "" {
			if disk.Format, err = formatOf(from.Format, file.Name); err != nil {
				return err
			}
		}
		d.Disks = append(d.Disks, disk)
	}
	return nil
}

// formatOf reads the URI of a format, which every product spells in its own way; what it
// does not tell the file's name does.
func formatOf(uri, name string) (Format, error) {
	uri = strings.ToLower(uri)
	for _, f := range []Format{VMDK, VHD} {
		if strings.Contains(uri, string(f)) {
			return f, nil
		}
	}
	ext := strings.ToLower(path.Ext(name))
	switch {
	case strings.Contains(uri, "qcow"), strings.Contains(uri, "vdi"), ext == ".qcow2":
		return "", archive.Malformed("%.80q is an image of a kind that is not read: convert it to a stream-optimised VMDK", name)
	case ext == ".vmdk":
		return VMDK, nil
	case ext == ".vhd":
		return VHD, nil
	case ext == ".raw", ext == ".img", strings.Contains(uri, "raw"), strings.Contains(uri, "wiki/byte"):
		return Raw, nil
	}
	return "", archive.Malformed("%.80q is an image of the kind %.80q", name, uri)
}

// number reads a whole number that is not negative.
func number(what, text string) (int64, error) {
	n, err := strconv.ParseInt(strings.TrimSpace(text), 10, 64)
	if err != nil || n < 0 {
		return 0, archive.Malformed("the %.80s is %.40q", what, text)
	}
	return n, nil
}

// quantity is a number of units in bytes.
func quantity(what, text string, unit int64) (int64, error) {
	n, err := number(what, text)
	if err == nil && n > math.MaxInt64/unit {
		err = archive.Malformed("the %.80s is %.40q times %d", what, text, unit)
	}
	return n * unit, err
}

// units are names in use before there was a grammar of them.
var units = map[string]int64{
	"b": 1, "byte": 1, "bytes": 1, "kb": 1 << 10, "kilobytes": 1 << 10, "mb": 1 << 20, "megabytes": 1 << 20,
	"gb": 1 << 30, "gigabytes": 1 << 30, "tb": 1 << 40, "terabytes": 1 << 40,
}

// unitOf reads "byte * 2^20".
func unitOf(text string, otherwise int64) (int64, error) {
	short := strings.ToLower(strings.Join(strings.Fields(text), ""))
	if short == "" {
		return otherwise, nil
	}
	if unit, ok := units[short]; ok {
		return unit, nil
	}
	power, ok := strings.CutPrefix(strings.Replace(short, "bytes", "byte", 1), "byte*2^")
	n, err := strconv.ParseUint(power, 10, 6)
	if !ok || err != nil || n > 50 {
		return 0, archive.Malformed("a unit %.40q", text)
	}
	return 1 << n, nil
}
