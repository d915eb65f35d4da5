package inventory

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"cairn/init/hostd/client"
)

// CPU reads /proc/cpuinfo; the first processor stands for all.
func (s Source) CPU() client.CPU {
	b, err := os.ReadFile(filepath.Join(s.Proc, "cpuinfo"))
	if err != nil {
		return client.CPU{}
	}
	return parseCPU(string(b))
}

func parseCPU(info string) client.CPU {
	var c client.CPU
	sockets := map[string]bool{}
	first := true
	for line := range strings.Lines(info) {
		key, value, _ := strings.Cut(line, ":")
		key, value = strings.TrimSpace(key), strings.TrimSpace(value)
		switch key {
		case "processor":
			c.Count++
			first = c.Count == 1
		case "physical id":
			sockets[value] = true
		default:
			if first {
				cpuField(&c, key, value)
			}
		}
	}
	c.Sockets = max(len(sockets), min(c.Count, 1))
	return c
}

func cpuField(c *client.CPU, key, value string) {
	// What is not a number stays 0.
	n, _ := strconv.Atoi(value)
	switch key {
	case "vendor_id":
		c.Vendor = value
	case "model name":
		c.Model = value
	case "cpu family":
		c.Family = n
	case "model":
		c.ModelID = n
	case "stepping":
		c.Stepping = n
	case "cpu MHz":
		c.MHz, _ = strconv.ParseFloat(value, 64)
	case "flags":
		c.Flags = strings.Fields(value)
	}
}

// Memory reads /proc/meminfo.
func (s Source) Memory() client.Memory {
	b, err := os.ReadFile(filepath.Join(s.Proc, "meminfo"))
	if err != nil {
		return client.Memory{}
	}
	var m client.Memory
	for line := range strings.Lines(string(b)) {
		f := strings.Fields(line)
		if len(f) < 2 {
			continue
		}
		kib, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "MemTotal:":
			m.Total = kib << 10
		case "MemAvailable:":
			m.Available = kib << 10
		}
	}
	return m
}
