package storage

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"cairn/init/hostd/client"
	"cairn/toolstack/api"
)

// Hostd is what storage needs of a host's hostd; *client.Client is one. What the
// methods promise is said there.
type Hostd interface {
	Probe(ctx context.Context, config client.RepositoryConfig) ([]client.Repository, error)
	FormatRepository(ctx context.Context, sr string, config client.RepositoryConfig) (client.Repository, error)
	EraseRepository(ctx context.Context, sr string, config client.RepositoryConfig) error
	AttachRepository(ctx context.Context, sr string, config client.RepositoryConfig) (client.Repository, error)
	DetachRepository(ctx context.Context, sr string) error
	Repository(ctx context.Context, sr string) (client.Repository, error)

	Volumes(ctx context.Context, sr string) ([]client.Volume, error)
	Volume(ctx context.Context, sr, name string) (client.Volume, error)
	CreateVolume(ctx context.Context, sr, name string, spec client.VolumeSpec) (client.Volume, error)
	DeleteVolume(ctx context.Context, sr, name string) error
	ResizeVolume(ctx context.Context, sr, name string, size int64) (client.Volume, error)
	ActivateVolume(ctx context.Context, sr, name string) (client.Volume, error)
	DeactivateVolume(ctx context.Context, sr, name string) (client.Volume, error)
	RebaseVolume(ctx context.Context, sr, name, backing string) error
	CommitVolume(ctx context.Context, sr, name string, progress func(float64)) error
	CopyVolume(ctx context.Context, sr, name, toSR, toName string, progress func(float64)) error
	CheckVolume(ctx context.Context, sr, name string) (client.Check, error)
	NoteVolume(ctx context.Context, sr, name, note string) error

	Allocation(ctx context.Context, sr, name string) (client.Allocation, error)
	ChangeLogs(ctx context.Context, sr string) ([]client.ChangeLog, error)
	ReadChangeLog(ctx context.Context, sr, name string) ([]byte, error)
	WriteChangeLog(ctx context.Context, sr, name string, text []byte) error
	DeleteChangeLog(ctx context.Context, sr, name string) error
	ExportVolume(ctx context.Context, sr, name string, req client.ExportRequest) (*client.Lent, error)
}

var _ Hostd = (*client.Client)(nil)

// Numbers of errors that clients know from storage drivers.
const (
	backendInvalid         = 1
	backendInUse           = 16
	backendUnavailable     = 47
	backendVDIUnavailable  = 46
	backendDeviceMissing   = 90
	backendLocationMissing = 94
	backendChainTooLong    = 109
	backendISOLocation     = 220
	backendUnrelated       = 460
)

// backend is SR_BACKEND_FAILURE_<code>, whose text is the second parameter.
func backend(code int, text string) *api.Error {
	return &api.Error{Code: "SR_BACKEND_FAILURE_" + strconv.Itoa(code), Params: []string{"", text, ""}}
}

// place is what an answer of hostd is about.
type place struct {
	sr     api.SRRef
	vdi    api.VDIRef
	op     string
	asked  int64 // bytes
	remain int64
}

// failed gives hostd's errors the codes clients know.
func (p place) failed(err error) error {
	var e *client.Error
	if err == nil {
		return nil
	}
	if !errors.As(err, &e) {
		var known *api.Error
		if errors.As(err, &known) || errors.Is(err, context.Canceled) {
			return err
		}
		return backend(backendUnavailable, fmt.Sprintf("The SR is not available [opterr=%v]", err))
	}
	switch e.Code {
	case client.CodeNoSpace:
		return api.ErrSRFull(strconv.FormatInt(p.asked, 10), strconv.FormatInt(p.remain, 10))
	case client.CodeNotAttached:
		return api.ErrSRNotAttached(p.sr.String())
	case client.CodeUnsupported:
		return api.ErrSROperationNotSupported(p.sr.String())
	case client.CodeBadRequest:
		return backend(backendInvalid, "Invalid argument [opterr="+e.Message+"]")
	}
	if !p.vdi.IsNull() {
		return p.failedVDI(e)
	}
	switch e.Code {
	case client.CodeInUse, client.CodeConflict:
		return backend(backendInUse, "The SR device is currently in use [opterr="+e.Message+"]")
	}
	return backend(backendUnavailable, "The SR is not available [opterr="+e.Message+"]")
}

func (p place) failedVDI(e *client.Error) error {
	switch e.Code {
	case client.CodeInUse:
		return api.ErrVDIInUse(p.vdi.String(), p.op)
	case client.CodeNotFound:
		return api.ErrVDIMissing(p.sr.String(), p.vdi.String())
	}
	return backend(backendVDIUnavailable, "The VDI is not available [opterr="+e.Message+"]")
}
