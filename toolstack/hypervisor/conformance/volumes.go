package conformance

import (
	"testing"

	"cairn/toolstack/hypervisor"
)

// Volumes makes the images of the script's disks, where the hypervisor finds them.
type Volumes interface {
	// Create makes an empty qcow2 image.
	Create(t *testing.T, name string, bytes int64) hypervisor.Source
	// Raw makes a raw image.
	Raw(t *testing.T, name string, bytes int64) hypervisor.Source
	// Overlay makes an empty qcow2 image on another.
	Overlay(t *testing.T, name string, on hypervisor.Source) hypervisor.Source
	// CD makes a CD with one file of that name.
	CD(t *testing.T, name, file string) hypervisor.Source
	// Path is where a domain may be saved.
	Path(name string) string
	// Check finds faults in an image that no domain uses.
	Check(t *testing.T, s hypervisor.Source)
}

// Names are the volumes of a hypervisor that opens none.
type Names struct{}

// Create implements Volumes.
func (n Names) Create(_ *testing.T, name string, _ int64) hypervisor.Source {
	return hypervisor.Source{Path: n.Path(name), Format: hypervisor.Qcow2}
}

// Raw implements Volumes.
func (n Names) Raw(_ *testing.T, name string, _ int64) hypervisor.Source {
	return hypervisor.Source{Path: n.Path(name), Format: hypervisor.Raw}
}

// Overlay implements Volumes.
func (n Names) Overlay(_ *testing.T, name string, on hypervisor.Source) hypervisor.Source {
	return hypervisor.Source{Path: n.Path(name), Format: hypervisor.Qcow2, Backing: &on}
}

// CD implements Volumes.
func (n Names) CD(_ *testing.T, name, _ string) hypervisor.Source {
	return hypervisor.Source{Path: n.Path(name), Format: hypervisor.Raw}
}

// Path implements Volumes.
func (Names) Path(name string) string { return "/volumes/" + name }

// Check implements Volumes.
func (Names) Check(*testing.T, hypervisor.Source) {}
