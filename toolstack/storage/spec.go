package storage

import "cairn/toolstack/api"

// CreateSpec says which disk to make. One of type suspend is raw: a saved machine is
// written to it and read from it as it is.
type CreateSpec struct {
	SR                api.SRRef
	Name, Description string
	Size              int64
	Type              api.VDIType
	Sharable          bool
	ReadOnly          bool
	OtherConfig       map[string]string
}
