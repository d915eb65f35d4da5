package config

import (
	"bytes"
	"encoding/binary"
)

// smbiosPrefix starts the OEM string (SMBIOS type 11) that carries a document.
const smbiosPrefix = "cairn.config:"

const (
	smbiosHeaderLen  = 4
	smbiosOEMStrings = 11
	smbiosEndOfTable = 127
)

// FromSMBIOS returns the document in a structure table such as
// /sys/firmware/dmi/tables/DMI, and whether there is one. A damaged table is
// read as far as it makes sense: firmware tables often end oddly.
func FromSMBIOS(table []byte) ([]byte, bool) {
	for len(table) >= smbiosHeaderLen {
		kind, length := table[0], int(table[1])
		if length < smbiosHeaderLen || length > len(table) {
			return nil, false
		}
		strs, rest := smbiosStrings(table[length:])
		if kind == smbiosOEMStrings {
			if text, ok := configString(strs); ok {
				return text, true
			}
		}
		if kind == smbiosEndOfTable {
			return nil, false
		}
		table = rest
	}
	return nil, false
}

// smbiosStrings splits the string set that follows a structure's fixed part
// from the next structure. The set ends with an empty string.
func smbiosStrings(b []byte) (strs [][]byte, rest []byte) {
	if len(b) >= 2 && binary.LittleEndian.Uint16(b) == 0 {
		return nil, b[2:]
	}
	for {
		i := bytes.IndexByte(b, 0)
		if i < 0 {
			return strs, nil
		}
		if i == 0 {
			return strs, b[1:]
		}
		strs = append(strs, b[:i])
		b = b[i+1:]
	}
}

func configString(strs [][]byte) ([]byte, bool) {
	for _, s := range strs {
		if text, ok := bytes.CutPrefix(s, []byte(smbiosPrefix)); ok {
			return bytes.Clone(text), true
		}
	}
	return nil, false
}
