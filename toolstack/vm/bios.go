package vm

import (
	"maps"
	"slices"
	"strings"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// biosKeys are the strings of a guest's firmware tables that may be chosen, with
// the values of those nobody chose.
var biosKeys = map[string]string{
	"bios-vendor": "Cairn", "bios-version": "",
	"system-manufacturer": "Cairn", "system-product-name": "KVM guest", "system-version": "", "system-serial-number": "",
	"baseboard-manufacturer": "", "baseboard-product-name": "", "baseboard-version": "", "baseboard-serial-number": "",
	"baseboard-asset-tag": "", "baseboard-location-in-chassis": "", "enclosure-asset-tag": "",
}

// maxBIOSString is what fits the reference implementation's tables.
const maxBIOSString = 512

// setBIOSStrings: a guest's licences hang on them, so they are chosen once.
func setBIOSStrings(e *edit, value map[string]string) error {
	if err := e.mayChooseBIOS(); err != nil {
		return err
	}
	for _, key := range slices.Sorted(maps.Keys(value)) {
		if _, ok := biosKeys[key]; !ok {
			return api.ErrInvalidValue(key, "unknown key")
		}
		if why := badBIOSString(value[key]); why != "" {
			return api.ErrInvalidValue(key, why)
		}
	}
	e.vm.BIOSStrings = maps.Clone(biosKeys)
	maps.Copy(e.vm.BIOSStrings, value)
	return nil
}

func (e *edit) mayChooseBIOS() error {
	if len(e.vm.BIOSStrings) > 0 {
		return api.ErrVMBIOSStringsAlreadySet()
	}
	return nil
}

func badBIOSString(s string) string {
	switch {
	case s == "" || len(s) > maxBIOSString:
		return "must have 1 to 512 characters"
	case strings.TrimSpace(s) != s:
		return "has white space at an end"
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }):
		return "has a character that is not printable ASCII"
	}
	return ""
}

// copyBIOSStrings gives a guest those of a host, for systems that are licensed
// for its maker's machines.
func copyBIOSStrings(e *edit, host api.HostRef) error {
	h, err := db.Get(e.tx, host)
	if err != nil {
		return err
	}
	if err := e.mayChooseBIOS(); err != nil {
		return err
	}
	e.vm.BIOSStrings = maps.Clone(biosKeys)
	for key, text := range h.BIOSStrings {
		if _, known := biosKeys[key]; known {
			e.vm.BIOSStrings[key] = text
		}
	}
	return nil
}
