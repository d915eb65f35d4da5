package life

import (
	"context"

	"cairn/ci/lab/inside"
)

// Sound asserts that `qemu-img check` finds nothing wrong in any volume of the
// host's repositories, neither errors nor clusters lost. Volumes that a running
// guest has open are left out: their headers are behind. It returns how many it
// has looked at.
func Sound(ctx context.Context, a API, host inside.Host) (checked int) {
	a.T.Helper()
	var srs map[string]struct {
		UUID string   `json:"uuid"`
		Type string   `json:"type"`
		PBDs []string `json:"PBDs"`
	}
	must(a.T, a.Client.Call(ctx, "SR.get_all_records", &srs))
	for _, sr := range srs {
		if holdsImages[sr.Type] && a.plugged(ctx, sr.PBDs) {
			checked += soundIn(ctx, a, host, sr.UUID)
		}
	}
	a.T.Logf("%d images are sound", checked)
	return checked
}

var holdsImages = map[string]bool{"file": true, "ext": true, "lvm": true}

func (a API) plugged(ctx context.Context, pbds []string) bool {
	a.T.Helper()
	for _, pbd := range pbds {
		var attached bool
		must(a.T, a.Client.Call(ctx, "PBD.get_currently_attached", &attached, pbd))
		if attached {
			return true
		}
	}
	return false
}

func soundIn(ctx context.Context, a API, host inside.Host, sr string) (checked int) {
	a.T.Helper()
	hostd := host.Hostd()
	defer hostd.Close()
	volumes, err := hostd.Volumes(ctx, sr)
	must(a.T, err)
	for _, v := range volumes {
		if v.Problem != "" {
			a.T.Errorf("volume %s of %s: %s", v.Name, sr, v.Problem)
			continue
		}
		if v.Active {
			continue
		}
		found, err := hostd.CheckVolume(ctx, sr, v.Name)
		if err != nil {
			a.T.Errorf("volume %s of %s: %v", v.Name, sr, err)
		} else if found.Errors != 0 || found.Leaks != 0 {
			a.T.Errorf("volume %s of %s: %d errors, %d leaks", v.Name, sr, found.Errors, found.Leaks)
		}
		checked++
	}
	return checked
}
