package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
)

// Codes of errors of storage verbs that a caller may branch on.
const (
	// CodeInUse: a medium holds something that is not this repository's, or a
	// volume is being worked on. The message names what was found.
	CodeInUse = "IN_USE"
	// CodeNoSpace: it does not fit; nothing was changed.
	CodeNoSpace = "NO_SPACE"
	// CodeConflict: the name is taken by something else, or others depend on it.
	CodeConflict = "CONFLICT"
	// CodeNotAttached: the repository is not attached, which comes first.
	CodeNotAttached = "NOT_ATTACHED"
	// CodeUnsupported: this type of repository or volume cannot do it.
	CodeUnsupported = "UNSUPPORTED"
	// CodeDamaged: the medium or the volume cannot be read as what it says it is.
	CodeDamaged = "DAMAGED"
	// CodeCancelled: the job was cancelled; what it had half made is removed.
	CodeCancelled = "CANCELLED"
	// CodeJobLost: the job ended with the hostd that ran it. Ask again: every verb
	// that runs as a job may be repeated.
	CodeJobLost = "JOB_LOST"
)

// Types of repositories. Every string of a Config is checked: unknown keys and
// devices or directories outside the allowed places are CodeBadRequest.
const (
	// TypeFile keeps volumes in the directory Config["location"].
	TypeFile = "file"
	// TypeExt is an ext4 file system on the whole block device Config["device"],
	// a path below /dev.
	TypeExt = "ext"
	// TypeLVM is a volume group on the whole block device Config["device"]. Every
	// volume takes its full size at once.
	TypeLVM = "lvm"
	// TypeISO is the directory Config["location"], read only; each *.iso and *.img
	// directly in it is a raw volume by its file name. Config["legacy_mode"] must
	// be "true": other ISO libraries lie on the network.
	TypeISO = "iso"
	// TypeUdev is what is in the machine now: Config["location"] is /dev/xapi/cd
	// for optical drives and /dev/xapi/block for USB disks. Volumes are raw and
	// named after the kernel's name of the device.
	TypeUdev = "udev"
	// TypeDummy keeps no bytes: volumes have names and sizes, until hostd restarts.
	TypeDummy = "dummy"
)

// Format is how a volume's bytes are laid out. Nobody guesses it from content.
type Format string

// The formats. Qcow2 has clusters of 64 KiB.
const (
	Raw   Format = "raw"
	Qcow2 Format = "qcow2"
)

// RepositoryConfig says where a repository is; keys are those of device-config.
type RepositoryConfig struct {
	Type   string            `json:"type"`
	Config map[string]string `json:"config,omitempty"`
}

// Repository is a place for volumes. Sizes are in bytes.
type Repository struct {
	// UUID is empty in an answer of Probe for a medium that could become one.
	UUID string `json:"uuid,omitempty"`
	Type string `json:"type"`
	// Config is what attaches it; Probe fills it in.
	Config map[string]string `json:"config,omitempty"`
	// Path is the directory of its volumes; empty while it is not attached and for
	// types without one.
	Path string `json:"path,omitempty"`
	// Total, Used and Free are the medium's: Free is what volumes may still take,
	// so it is less than Total−Used where the file system keeps a reserve.
	Total int64 `json:"total"`
	Used  int64 `json:"used"`
	Free  int64 `json:"free"`
	// ReadOnly repositories hold volumes that others made.
	ReadOnly bool `json:"read_only,omitempty"`
	// Problem is a defect found on attach that the repository works in spite of.
	Problem string `json:"problem,omitempty"`
}

// Volume is one disk's bytes, or one layer of them.
//
// Names of volumes that are made here are 1 to 64 of [0-9A-Za-z.-] and begin with
// a letter or digit; those of TypeISO are file names.
type Volume struct {
	Name string `json:"name"`
	// Path is what QEMU opens; for a volume with Block it exists while active.
	Path   string `json:"path"`
	Format Format `json:"format"`
	Block  bool   `json:"block,omitempty"`
	// VirtualSize is what a guest sees, Used what the volume takes of the medium.
	VirtualSize int64 `json:"virtual_size"`
	Used        int64 `json:"used"`
	// Backing is the name of the volume below an overlay, in the same repository.
	Backing string `json:"backing,omitempty"`
	// Note is the text last given to NoteVolume or CreateVolume.
	Note     string `json:"note,omitempty"`
	Active   bool   `json:"active"`
	ReadOnly bool   `json:"read_only,omitempty"`
	// Problem is why the volume must not be used: it is not what its name says.
	// Verbs other than NoteVolume and DeleteVolume answer CodeDamaged for it.
	Problem string `json:"problem,omitempty"`
}

// VolumeSpec is a volume to be made.
type VolumeSpec struct {
	// Size is the virtual size in bytes, a multiple of 512; 0 with a Backing means
	// the size of that. It must not be less than the backing's.
	Size   int64  `json:"size"`
	Format Format `json:"format"`
	// Backing, only with Qcow2, makes an overlay of that volume, which nobody may
	// write to any more.
	Backing string `json:"backing,omitempty"`
	Note    string `json:"note,omitempty"`
}

// MaxNote bounds a note, in bytes.
const MaxNote = 4096

// Check is what qemu-img found in a volume. A volume is sound when Errors is 0;
// Leaks only waste space. Raw volumes have nothing to check.
type Check struct {
	Errors int64 `json:"errors"`
	Leaks  int64 `json:"leaks"`
	// End is the offset after the last byte in use.
	End int64 `json:"end"`
}

// JobState is how far a job is.
type JobState string

// The states of a job. The last three are final.
const (
	JobRunning   JobState = "running"
	JobDone      JobState = "done"
	JobFailed    JobState = "failed"
	JobCancelled JobState = "cancelled"
)

// Job is work that takes longer than a request should. Asking for the same work
// again while it runs joins it: the answer is the same job.
type Job struct {
	ID    string   `json:"id"`
	Verb  string   `json:"verb"`
	State JobState `json:"state"`
	// Progress goes from 0 to 1 and never back.
	Progress float64 `json:"progress"`
	// Revision changes whenever anything else here does; GET with ?after= waits
	// until it is another.
	Revision int64 `json:"revision"`
	// Result is the verb's answer once State is JobDone; Error why it is not.
	Result json.RawMessage `json:"result,omitempty"`
	Error  *Error          `json:"error,omitempty"`
}

// DummyConfigKey, of TypeDummy's Config, is the size of the made-up medium in
// bytes; without it there is 1 TiB.
const DummyConfigKey = "size"

func repositoryPath(sr string) string { return "/v1/repositories/" + url.PathEscape(sr) }

func volumePath(sr, name string) string {
	return repositoryPath(sr) + "/volumes/" + url.PathEscape(name)
}

// Probe lists the repositories of a type that a config finds, and the media that
// could become one: those have no UUID. Without "device" all whole disks that hold
// nothing are offered. It changes nothing.
func (c *Client) Probe(ctx context.Context, config RepositoryConfig) ([]Repository, error) {
	return send[[]Repository](ctx, c, http.MethodPost, "/v1/probe", config)
}

// FormatRepository makes a repository on a blank medium, and does nothing to one
// that is already this repository. Anything else on the medium is CodeInUse.
func (c *Client) FormatRepository(ctx context.Context, sr string, config RepositoryConfig) (Repository, error) {
	return work[Repository](ctx, c, repositoryPath(sr)+"/format", config, nil)
}

// EraseRepository removes the repository and all its volumes from its medium, and
// nothing that is not its own. It detaches first. A medium without the repository
// is a success.
func (c *Client) EraseRepository(ctx context.Context, sr string, config RepositoryConfig) error {
	_, err := work[struct{}](ctx, c, repositoryPath(sr)+"/erase", config, nil)
	return err
}

// AttachRepository makes the volumes of a formatted repository reachable. It is
// idempotent; a repository attached with another config is CodeConflict. After a
// restart of hostd repositories are attached anew, which disturbs no user.
func (c *Client) AttachRepository(ctx context.Context, sr string, config RepositoryConfig) (Repository, error) {
	return work[Repository](ctx, c, repositoryPath(sr)+"/attach", config, nil)
}

// DetachRepository lets go of the medium; CodeInUse while volumes are active or
// being worked on. One that is not attached is a success.
func (c *Client) DetachRepository(ctx context.Context, sr string) error {
	_, err := send[struct{}](ctx, c, http.MethodPost, repositoryPath(sr)+"/detach", nil)
	return err
}

// Repository asks for one attached repository and its space as it is now.
func (c *Client) Repository(ctx context.Context, sr string) (Repository, error) {
	return get[Repository](ctx, c, repositoryPath(sr))
}

// Volumes lists all volumes of an attached repository by name.
func (c *Client) Volumes(ctx context.Context, sr string) ([]Volume, error) {
	return get[[]Volume](ctx, c, repositoryPath(sr)+"/volumes")
}

// Volume asks for one volume.
func (c *Client) Volume(ctx context.Context, sr, name string) (Volume, error) {
	return get[Volume](ctx, c, volumePath(sr, name))
}

// CreateVolume makes a volume that is on disk when it returns. The same spec again
// is a success, which leaves content and a newer note alone; another is
// CodeConflict.
func (c *Client) CreateVolume(ctx context.Context, sr, name string, spec VolumeSpec) (Volume, error) {
	return send[Volume](ctx, c, http.MethodPut, volumePath(sr, name), spec)
}

// DeleteVolume removes a volume; CodeConflict while another has it as backing,
// CodeInUse while it is active. One that is not there is a success.
func (c *Client) DeleteVolume(ctx context.Context, sr, name string) error {
	_, err := do[struct{}](ctx, c, http.MethodDelete, volumePath(sr, name), "", nil)
	return err
}

// ResizeVolume makes a volume larger; smaller is CodeBadRequest. For a volume that
// a running QEMU has open it only makes room below (Block) or does nothing: the
// hypervisor tells QEMU, which writes the new size. The same for one that has
// overlays: it is called before QEMU commits a larger overlay to it, and needed
// there only for TypeLVM.
func (c *Client) ResizeVolume(ctx context.Context, sr, name string, size int64) (Volume, error) {
	return send[Volume](ctx, c, http.MethodPost, volumePath(sr, name)+"/resize", ResizeRequest{Size: size})
}

// ActivateVolume makes the volume and all it is based on openable by QEMU.
func (c *Client) ActivateVolume(ctx context.Context, sr, name string) (Volume, error) {
	return send[Volume](ctx, c, http.MethodPost, volumePath(sr, name)+"/activate", nil)
}

// DeactivateVolume undoes ActivateVolume for this volume, and for those below it
// that no active one needs. What was written to it is on its medium when it returns.
func (c *Client) DeactivateVolume(ctx context.Context, sr, name string) (Volume, error) {
	return send[Volume](ctx, c, http.MethodPost, volumePath(sr, name)+"/deactivate", nil)
}

// RebaseVolume writes another backing into the header and touches no data: the
// caller knows that the new one reads the same.
func (c *Client) RebaseVolume(ctx context.Context, sr, name, backing string) error {
	_, err := send[struct{}](ctx, c, http.MethodPost, volumePath(sr, name)+"/rebase", RebaseRequest{Backing: backing})
	return err
}

// CommitVolume writes the data of an overlay into its backing, which grows first
// when it is smaller. The overlay keeps its data, so that the work may be repeated
// whenever it was interrupted. A cancelled ctx cancels the work.
func (c *Client) CommitVolume(ctx context.Context, sr, name string, progress func(float64)) error {
	_, err := work[struct{}](ctx, c, volumePath(sr, name)+"/commit", nil, progress)
	return err
}

// CopyVolume writes what a volume reads, all layers flattened, into a new volume
// of the same format and note. It appears whole or not at all; one that is there
// already is CodeConflict. A cancelled ctx cancels the work.
func (c *Client) CopyVolume(ctx context.Context, sr, name, toSR, toName string, progress func(float64)) error {
	_, err := work[Volume](ctx, c, volumePath(sr, name)+"/copy", CopyRequest{Repository: toSR, Name: toName}, progress)
	return err
}

// CheckVolume runs qemu-img check, which changes nothing.
func (c *Client) CheckVolume(ctx context.Context, sr, name string) (Check, error) {
	return work[Check](ctx, c, volumePath(sr, name)+"/check", nil, nil)
}

// NoteVolume replaces the note.
func (c *Client) NoteVolume(ctx context.Context, sr, name, note string) error {
	_, err := send[struct{}](ctx, c, http.MethodPut, volumePath(sr, name)+"/note", NoteRequest{Note: note})
	return err
}

// CopyRequest is the body of a copy.
type CopyRequest struct {
	Repository string `json:"repository"`
	Name       string `json:"name"`
}

// ResizeRequest is the body of a resize.
type ResizeRequest struct {
	Size int64 `json:"size"`
}

// RebaseRequest is the body of a rebase.
type RebaseRequest struct {
	Backing string `json:"backing"`
}

// NoteRequest is the body of a note.
type NoteRequest struct {
	Note string `json:"note"`
}
