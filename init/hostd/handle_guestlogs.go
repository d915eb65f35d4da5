package hostd

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
)

// guestLog is a file of libvirt's or virtlogd's: what QEMU said of a guest, or what
// the guest said on its console; older ones have a number.
var guestLog = regexp.MustCompile(`^(` + guestUUID + `)(-console)?\.log(\.[0-9]+)?$`)

const guestUUID = `[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}`

var wholeUUID = regexp.MustCompile(`^` + guestUUID + `$`)

func (h *Host) guestLogs() string { return filepath.Join(h.Paths.Logs, "libvirt/qemu") }

// filesOfGuests are the log files by guest.
func (h *Host) filesOfGuests() (map[string][]string, error) {
	entries, err := os.ReadDir(h.guestLogs())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	all := map[string][]string{}
	for _, e := range entries {
		if m := guestLog.FindStringSubmatch(e.Name()); m != nil {
			all[m[1]] = append(all[m[1]], filepath.Join(h.guestLogs(), e.Name()))
		}
	}
	return all, nil
}

func (h *Host) getGuestLogs(w http.ResponseWriter, r *http.Request) {
	files, err := h.filesOfGuests()
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	guests := []string{}
	for uuid := range files {
		guests = append(guests, uuid)
	}
	slices.Sort(guests)
	h.answer(w, guests)
}

func (h *Host) deleteGuestLogs(w http.ResponseWriter, r *http.Request) {
	uuid := r.PathValue("uuid")
	if !wholeUUID.MatchString(uuid) {
		h.refuse(w, r, badRequest("a guest's logs are named by its UUID"))
		return
	}
	files, err := h.filesOfGuests()
	for _, f := range files[uuid] {
		if gone := os.Remove(f); gone != nil && !errors.Is(gone, fs.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	h.answer(w, struct{}{})
}
