// Package lab starts Cairn hosts in QEMU, for tests and for `make run`.
//
// A Host is one QEMU process with its disks, ports and logs in a directory of
// its own, so any number run side by side. Nothing outlives the program that
// started it: QEMU gets SIGKILL when its parent dies, its control channels are
// inherited sockets instead of files, and its ports are chosen by the kernel.
// Waits are for lines on the serial console or for events of QEMU; nothing
// here sleeps.
//
// A Host's methods may be called by several goroutines.
package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Firmware is how a host boots.
type Firmware int

const (
	// OVMF boots the disk: UEFI, systemd-boot, UKI. The real chain.
	OVMF Firmware = iota
	// Direct hands kernel, initramfs and command line to the machine. Quicker,
	// and the only way to add words to the command line.
	Direct
)

// HTTPS is the port of the management API.
const HTTPS = 443

// Config is what to start. The zero value of most fields is a sane host.
type Config struct {
	Name  string // appears in logs and errors
	Tools Tools
	Image string // directory with disk.img, vmlinuz, …; empty: no root disk

	// Dir keeps disks and logs. A second Start on the same directory is the
	// same host powered on again. Empty: a new one, removed by Close.
	Dir string

	Firmware  Firmware
	Cmdline   []string // words added to the image's command line; Direct only
	Kernel    string   // Direct boots of something else than Image
	Initrd    string
	MemoryMiB int
	CPUs      int

	NoNestedKVM bool // a CPU without vmx and svm
	NoReboot    bool // a reset ends QEMU instead
	Watchdog    bool // an i6300esb that resets the machine
	Debug       bool // the debug channel on the second port; Direct only

	Disks        []Disk // further disks, behind the root disk
	NICs         []NIC  // default: one with port 443 forwarded
	Port         int    // local port for 443 on the default NIC; 0: any
	SMBIOSConfig string // configuration document handed over by SMBIOS

	Watch func(Line) // sees every console line as it comes
}

// configPrefix marks the OEM string that holds a configuration document.
const configPrefix = "cairn.config:"

// Prepare makes the files of a host in its directory without powering it on,
// so that a test can damage them.
func Prepare(ctx context.Context, cfg Config) error {
	_, err := cfg.prepare(ctx)
	return err
}

// prepare makes the run's files and says what machine to start.
func (c *Config) prepare(ctx context.Context) (machine, error) {
	c.defaults()
	m := machine{
		Name: c.Name, KVM: KVM() == nil, NoNested: c.NoNestedKVM, MemoryMiB: c.MemoryMiB, CPUs: c.CPUs,
		NoReboot: c.NoReboot, Watchdog: c.Watchdog, NICs: c.NICs,
	}
	if err := os.MkdirAll(c.Dir, 0o755); err != nil {
		return m, err
	}
	err := errors.Join(c.bootFiles(&m), c.smbiosFile(&m))
	if err != nil {
		return m, err
	}
	disks := c.Disks
	if c.Image != "" {
		root := Disk{Backing: filepath.Join(c.Image, "disk.img"), Serial: "root"}
		disks = append([]Disk{root}, disks...)
	}
	for i, d := range disks {
		if d, err = c.disk(ctx, i, d); err != nil {
			return m, err
		}
		m.Disks = append(m.Disks, d)
	}
	return m, nil
}

func (c *Config) defaults() {
	if c.Name == "" {
		c.Name = "host"
	}
	if c.MemoryMiB == 0 {
		c.MemoryMiB = 2048
	}
	if c.CPUs == 0 {
		c.CPUs = 2
	}
	if c.NICs == nil {
		c.NICs = []NIC{{Forwards: []Forward{{Local: c.Port, Port: HTTPS}}}}
	}
}

func (c *Config) bootFiles(m *machine) error {
	if c.Firmware == OVMF {
		m.Code = c.Tools.Path("usr/share/OVMF/OVMF_CODE_4M.fd")
		m.Vars = filepath.Join(c.Dir, "vars.fd")
		return copyOnce(c.Tools.Path("usr/share/OVMF/OVMF_VARS_4M.fd"), m.Vars)
	}
	m.Kernel, m.Initrd = c.Kernel, c.Initrd
	words := c.Cmdline
	if m.Kernel == "" {
		m.Kernel = filepath.Join(c.Image, "vmlinuz")
		m.Initrd = filepath.Join(c.Image, "initramfs.img")
		fixed, err := os.ReadFile(filepath.Join(c.Image, "cmdline"))
		if err != nil {
			return fmt.Errorf("%s: image: %w", c.Name, err)
		}
		words = append(strings.Fields(string(fixed)), words...)
	}
	if c.Debug {
		words = append(words, "cairn.debug=ttyS1")
	}
	m.Words = strings.Join(words, " ")
	return nil
}

func (c *Config) smbiosFile(m *machine) error {
	if c.SMBIOSConfig == "" {
		return nil
	}
	m.SMBIOS = filepath.Join(c.Dir, "smbios-config")
	return os.WriteFile(m.SMBIOS, []byte(configPrefix+c.SMBIOSConfig), 0o600)
}

// copyOnce keeps an existing copy, so that a host's UEFI variables survive
// its power cycles.
func copyOnce(from, to string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}
