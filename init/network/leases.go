package network

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"cairn/init/network/dhcp"
)

// LeaseFile keeps one lease, and the bridges, in files on a tmpfs. Its times count from the
// boot, because the wall clock may be set between two starts of hostd.
type LeaseFile struct {
	Path string
	// BridgePath is the file of the bridges.
	BridgePath string
	// Uptime is the time since boot, suspension included.
	Uptime func() time.Duration
}

// Uptime reads the kernel's boot clock.
func Uptime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // cannot happen on a kernel that runs this
	}
	return time.Duration(ts.Nano())
}

type savedLease struct {
	MAC     string        `json:"mac"`
	Lease   dhcp.Lease    `json:"lease"`
	Expires time.Duration `json:"expires_uptime"` // 0: never
}

// Load implements Leases. A file that cannot be read is as good as none: the
// server knows the lease.
func (f LeaseFile) Load(mac string) (dhcp.Lease, bool) {
	var s savedLease
	b, err := os.ReadFile(f.Path)
	if err != nil || json.Unmarshal(b, &s) != nil || s.MAC != mac || !s.Lease.Address.IsValid() {
		return dhcp.Lease{}, false
	}
	if s.Expires != 0 {
		s.Lease.Expires = time.Now().Add(s.Expires - f.Uptime())
	}
	return s.Lease, true
}

// Save implements Leases.
func (f LeaseFile) Save(mac string, l dhcp.Lease) error {
	s := savedLease{MAC: mac, Lease: l}
	if !l.Expires.IsZero() {
		s.Expires = f.Uptime() + time.Until(l.Expires)
	}
	s.Lease.Expires = time.Time{}
	b, err := json.Marshal(s)
	if err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	if err := replace(f.Path, b); err != nil {
		return fmt.Errorf("lease: %w", err)
	}
	return nil
}

// replace leaves the old content or the new, whenever this process ends.
func replace(path string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// Bridges implements Leases. Without a readable file none is wanted, and those
// with guests stay as they are.
func (f LeaseFile) Bridges() []Bridge {
	var all []Bridge
	b, err := os.ReadFile(f.BridgePath)
	if err != nil || json.Unmarshal(b, &all) != nil {
		return nil
	}
	return all
}

// SaveBridges implements Leases.
func (f LeaseFile) SaveBridges(all []Bridge) error {
	b, err := json.Marshal(all)
	if err == nil {
		err = replace(f.BridgePath, b)
	}
	if err != nil {
		return fmt.Errorf("bridges: %w", err)
	}
	return nil
}

// Drop implements Leases.
func (f LeaseFile) Drop(string) error {
	if err := os.Remove(f.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("lease: %w", err)
	}
	return nil
}
