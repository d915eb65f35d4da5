package device

import (
	"slices"
	"strconv"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// How many devices a machine may have: places of disks and drives, and of NICs.
const (
	maxVBDs = 255
	maxVIFs = 7
)

// autodetect as a userdevice asks for the first place that is free.
const autodetect = "autodetect"

// firstCD is where drives go when nobody says where: old guests look there.
const firstCD = 3

// Place reads a userdevice: a number, or the name Linux has for the disk of that
// number on any bus.
func Place(userdevice string) (int, bool) {
	if n, err := strconv.Atoi(userdevice); err == nil {
		return n, n >= 0 && n < maxVBDs && strconv.Itoa(n) == userdevice
	}
	for _, bus := range []string{"xvd", "sd", "hd"} {
		if letters, ok := strings.CutPrefix(userdevice, bus); ok {
			return fromLetters(letters)
		}
	}
	return 0, false
}

func fromLetters(letters string) (int, bool) {
	n := 0
	if len(letters) == 0 || len(letters) > 2 {
		return 0, false
	}
	for _, c := range letters {
		if c < 'a' || c > 'z' {
			return 0, false
		}
		n = n*26 + int(c-'a') + 1
	}
	return n - 1, n <= maxVBDs
}

// diskName is the name of a place on the bus: sda … sdz, sdaa …
func diskName(n int) string {
	letters := ""
	for n++; n > 0; n = (n - 1) / 26 {
		letters = string(rune('a'+(n-1)%26)) + letters
	}
	return "sd" + letters
}

// usedPlaces are the places of a machine's disks and drives.
func usedPlaces(r db.Reader, vm *api.VM) map[int]bool {
	used := map[int]bool{}
	for _, ref := range vm.VBDs {
		if v, err := db.Get(r, ref); err == nil {
			if n, ok := Place(v.Userdevice); ok {
				used[n] = true
			}
		}
	}
	return used
}

// choosePlace resolves what a client asks for to a number.
func choosePlace(r db.Reader, vm *api.VM, userdevice string, kind api.VBDType) (string, error) {
	used := usedPlaces(r, vm)
	if userdevice == autodetect {
		free := freePlaces(used, kind)
		if len(free) == 0 {
			return "", api.ErrInvalidDevice(userdevice)
		}
		return strconv.Itoa(free[0]), nil
	}
	n, ok := Place(userdevice)
	if !ok {
		return "", api.ErrInvalidDevice(userdevice)
	}
	if used[n] {
		return "", api.ErrDeviceAlreadyExists(userdevice)
	}
	return strconv.Itoa(n), nil
}

// freePlaces lists the places that are free, the best first.
func freePlaces(used map[int]bool, kind api.VBDType) []int {
	var free []int
	for n := range maxVBDs {
		if !used[n] {
			free = append(free, n)
		}
	}
	if i := slices.Index(free, firstCD); kind == api.VBDTypeCD && i > 0 {
		free = slices.Insert(slices.Delete(free, i, i+1), 0, firstCD)
	}
	return free
}

// VIFPlace reads the number of a NIC.
func VIFPlace(device string) (int, bool) {
	n, err := strconv.Atoi(device)
	return n, err == nil && n >= 0 && n < maxVIFs && strconv.Itoa(n) == device
}

// usedVIFs are the numbers of a machine's NICs.
func usedVIFs(r db.Reader, vm *api.VM) map[string]bool {
	used := map[string]bool{}
	for _, ref := range vm.VIFs {
		if v, err := db.Get(r, ref); err == nil {
			used[v.Device] = true
		}
	}
	return used
}

// chooseVIFPlace resolves what a client asks for to a number.
func chooseVIFPlace(r db.Reader, vm *api.VM, device string) (string, error) {
	used := usedVIFs(r, vm)
	if device == autodetect {
		for n := range maxVIFs {
			if d := strconv.Itoa(n); !used[d] {
				return d, nil
			}
		}
		return "", api.ErrInvalidDevice(device)
	}
	if _, ok := VIFPlace(device); !ok {
		return "", api.ErrInvalidDevice(device)
	}
	if used[device] {
		return "", api.ErrDeviceAlreadyExists(device)
	}
	return device, nil
}
