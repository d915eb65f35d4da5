package storage

import (
	"context"
	"encoding/xml"
	"strconv"
	"strings"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
)

// probed asks a host what repositories a device_config finds. Without what the type
// needs all there is to choose from is offered, which is the second result.
func (m *Manager) probed(ctx context.Context, host api.HostRef, device map[string]string, kind string) (d driver, all []client.Repository, err error) {
	if d, err = driverOf(kind); err != nil {
		return d, nil, err
	}
	h, err := m.hostdOf(host)
	if err != nil {
		return d, nil, err
	}
	all, err = h.Probe(ctx, d.repository(device))
	return d, all, place{}.failed(err)
}

// probe answers the repositories there are as XML; where the device_config lacks a
// key, the error for that carries the values it could have.
func (m *Manager) probe(c *api.Call, host api.HostRef, device map[string]string, kind string, _ map[string]string) (string, error) {
	d, err := driverOf(kind)
	if err != nil {
		return "", err
	}
	missing := d.check(device)
	if missing != nil && d.needs != "device" {
		return "", missing
	}
	_, all, err := m.probed(c, host, device, kind)
	if err != nil {
		return "", err
	}
	if missing == nil {
		return listXML(all)
	}
	choice, err := choiceXML(all)
	if err != nil {
		return "", err
	}
	return "", &api.Error{Code: d.missing.Code, Params: []string{"", d.missing.Params[1], choice}}
}

// The XML clients parse: one element a line, text on lines of its own.
type (
	xmlList struct {
		XMLName xml.Name `xml:"SRlist"`
		SR      []xmlSR  `xml:"SR"`
	}
	xmlSR struct {
		UUID    xmlText  `xml:"UUID"`
		Devlist *xmlText `xml:"Devlist"`
		Size    xmlText  `xml:"size"`
	}
	xmlDevices struct {
		XMLName xml.Name    `xml:"Devlist"`
		Device  []xmlDevice `xml:"BlockDevice"`
	}
	xmlDevice struct {
		Path xmlText `xml:"path"`
		Size xmlText `xml:"size"`
	}
	xmlText struct {
		Text string `xml:",chardata"`
	}
)

func number(n int64) xmlText { return xmlText{strconv.FormatInt(n, 10)} }

// listXML lists the repositories that exist.
func listXML(all []client.Repository) (string, error) {
	var l xmlList
	for _, r := range all {
		if r.UUID == "" {
			continue
		}
		sr := xmlSR{UUID: xmlText{r.UUID}, Size: number(r.Total)}
		if device := r.Config["device"]; device != "" {
			sr.Devlist = &xmlText{device}
		}
		l.SR = append(l.SR, sr)
	}
	return document(l)
}

// choiceXML lists devices that could become repositories.
func choiceXML(all []client.Repository) (string, error) {
	var l xmlDevices
	for _, r := range all {
		l.Device = append(l.Device, xmlDevice{Path: xmlText{r.Config["device"]}, Size: number(r.Total)})
	}
	return document(l)
}

func document(v any) (string, error) {
	var b strings.Builder
	b.WriteString("<?xml version=\"1.0\" ?>\n")
	e := xml.NewEncoder(&b)
	e.Indent("", "\t")
	if err := e.Encode(v); err != nil {
		return "", err
	}
	b.WriteByte('\n')
	return b.String(), nil
}

// probeExt answers the same as records. An incomplete configuration is one that
// SR.create would not take yet.
func (m *Manager) probeExt(c *api.Call, host api.HostRef, device map[string]string, kind string, _ map[string]string) ([]*api.ProbeResult, error) {
	d, err := driverOf(kind)
	if err != nil {
		return nil, err
	}
	if missing := d.check(device); missing != nil && d.needs != "device" {
		return nil, missing
	}
	_, all, err := m.probed(c, host, device, kind)
	if err != nil {
		return nil, err
	}
	results := []*api.ProbeResult{}
	for _, r := range all {
		p := api.NewProbeResult()
		p.Configuration, p.Complete, p.ExtraInfo = r.Config, d.check(r.Config) == nil, map[string]string{}
		if r.UUID != "" {
			stat := api.NewSRStat()
			stat.UUID, stat.TotalSpace, stat.FreeSpace = &r.UUID, r.Total, r.Free
			p.SR = &stat
		}
		results = append(results, p)
	}
	return results, nil
}

func (m *Manager) updateSR(c *api.Call, ref api.SRRef) error {
	done, err := m.holdSR(c, ref, api.StorageOperationsUpdate)
	if err != nil {
		return err
	}
	defer done()
	at, err := m.reach(m.cfg.DB.Snapshot(), ref, "")
	if err != nil {
		return err
	}
	return place{sr: ref}.failed(m.measure(c, at, true))
}
