package plan

import (
	"fmt"
	"strings"

	"cairn/toolstack/api"
)

// Bounds of what a described field holds, in bytes: a name is shown in lists; the largest
// of the others are the variables of UEFI and what a snapshot remembers of its VM.
const (
	maxName  = 64 << 10
	maxField = 1 << 20
)

// bounds refuses records that nobody can handle once they are here.
func (p *planner) bounds() error {
	var b []byte
	for _, obj := range p.doc.Objects {
		fields := obj.Record.Class().Fields
		for i := range fields {
			most := maxField
			if strings.HasPrefix(fields[i].Name, "name_") {
				most = maxName
			}
			if fields[i].Derived {
				continue
			}
			if b = obj.Record.AppendField(b[:0], api.JSON, i); len(b) > most {
				return api.ErrImportError(fmt.Sprintf("%s of %.80q has more than %d bytes", fields[i].Name, obj.ID, most))
			}
		}
	}
	return nil
}
