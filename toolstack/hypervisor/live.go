package hypervisor

import (
	"context"
	"fmt"
	"net"
)

// unbuilt refuses what libvirt is not yet asked for.
type unbuilt struct{}

func (unbuilt) no(what string) error { return fmt.Errorf("%s: %w", what, ErrUnsupported) }

func (u unbuilt) Hardware(context.Context, string) (Hardware, error) {
	return Hardware{}, u.no("hardware")
}
func (u unbuilt) AttachDisk(context.Context, string, Disk) error          { return u.no("attach disk") }
func (u unbuilt) DetachDisk(context.Context, string, string) error        { return u.no("detach disk") }
func (u unbuilt) AttachNIC(context.Context, string, NIC) error            { return u.no("attach nic") }
func (u unbuilt) DetachNIC(context.Context, string, string) error         { return u.no("detach nic") }
func (u unbuilt) UpdateNIC(context.Context, string, NIC) error            { return u.no("update nic") }
func (u unbuilt) SetVCPUs(context.Context, string, int) error             { return u.no("set vcpus") }
func (u unbuilt) SetMemoryTarget(context.Context, string, int64) error    { return u.no("set memory") }
func (u unbuilt) Snapshot(context.Context, string, []Overlay) error       { return u.no("snapshot") }
func (u unbuilt) Save(context.Context, string, string) error              { return u.no("save") }
func (u unbuilt) Restore(context.Context, string, Spec, bool) error       { return u.no("restore") }
func (u unbuilt) Screenshot(context.Context, string) ([]byte, error)      { return nil, u.no("screenshot") }
func (u unbuilt) DialVNC(context.Context, string) (net.Conn, error)       { return nil, u.no("vnc") }
func (u unbuilt) Erase(context.Context, string) error                     { return u.no("erase") }
func (u unbuilt) ResizeDisk(context.Context, string, string, int64) error { return u.no("resize disk") }
func (u unbuilt) ChangeMedia(context.Context, string, string, *Source) error {
	return u.no("change media")
}
func (u unbuilt) MemoryStats(context.Context, string) (MemoryStats, error) {
	return MemoryStats{}, u.no("memory stats")
}
func (u unbuilt) Commit(context.Context, string, string, func(float64)) error { return u.no("commit") }
