package qga

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// portName is what the host calls the agent's port.
const portName = "org.qemu.guest_agent.0"

// Pauses before a port is looked for again, and before one is read again on whose other
// side nobody is connected: that reads as ended.
const (
	seekPause = time.Second
	readPause = 100 * time.Millisecond
)

// Run answers on the machine's port, as soon as it is there, for good.
func Run(s System) {
	a := New(s)
	for {
		if port, err := open(); err == nil {
			for err := error(io.EOF); errors.Is(err, io.EOF); time.Sleep(readPause) {
				err = a.Serve(port)
			}
			port.Close()
		}
		time.Sleep(seekPause)
	}
}

// open finds the port by what the kernel says of all of them: there may be no udevd that
// gives devices names.
func open() (*os.File, error) {
	files, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if name, err := os.ReadFile(f); err == nil && strings.TrimSpace(string(name)) == portName {
			return os.OpenFile("/dev/"+filepath.Base(filepath.Dir(f)), os.O_RDWR, 0)
		}
	}
	return nil, os.ErrNotExist
}

// Machine is a System of a kernel without much else. It mounts nothing, so there is
// nothing to freeze: that it was told to is written to Console.
type Machine struct {
	Console io.Writer
	Off     func(why string)
}

func (m Machine) note(what string) { fmt.Fprintf(m.Console, "guest-agent %s\n", what) }

// OS implements System.
func (m Machine) OS() map[string]string {
	var u unix.Utsname
	_ = unix.Uname(&u)
	release := unix.ByteSliceToString(u.Release[:])
	return map[string]string{
		"id": "cairn-demo", "name": "Cairn demo guest", "pretty-name": "Cairn demo guest 1.0", "version": "1.0", "version-id": "1.0",
		"kernel-release": release, "kernel-version": unix.ByteSliceToString(u.Version[:]), "machine": unix.ByteSliceToString(u.Machine[:]),
	}
}

// HostName implements System.
func (m Machine) HostName() string {
	name, _ := os.Hostname()
	return name
}

// Interfaces implements System.
func (m Machine) Interfaces() []Interface {
	nics, _ := net.Interfaces()
	all := []Interface{}
	for _, nic := range nics {
		i := Interface{Name: nic.Name, MAC: nic.HardwareAddr.String()}
		addresses, _ := nic.Addrs()
		for _, a := range addresses {
			n, ok := a.(*net.IPNet)
			if !ok {
				continue
			}
			kind, length := "ipv6", 0
			if n.IP.To4() != nil {
				kind = "ipv4"
			}
			length, _ = n.Mask.Size()
			i.Addresses = append(i.Addresses, Address{kind, n.IP.String(), length})
		}
		all = append(all, i)
	}
	return all
}

// Filesystems implements System.
func (m Machine) Filesystems() []Filesystem { return []Filesystem{} }

// Freeze implements System.
func (m Machine) Freeze() (int, error) {
	unix.Sync()
	m.note("freeze")
	return 1, nil
}

// Thaw implements System.
func (m Machine) Thaw() (int, error) {
	m.note("thaw")
	return 1, nil
}

// PowerOff implements System.
func (m Machine) PowerOff(mode string) {
	m.note("shutdown mode=" + mode)
	m.Off("guest-agent")
}
