package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// stub is the smallest PE32+ file with one section and room for a few more.
func stub(headers int) []byte {
	const lfanew, optSize, align = 0x40, 112 + 16*8, 0x200
	b := make([]byte, headers)
	copy(b, "MZ")
	put := binary.LittleEndian
	put.PutUint32(b[offLfanew:], lfanew)
	copy(b[lfanew:], "PE\x00\x00")
	put.PutUint16(b[lfanew+4:], 0x8664)
	put.PutUint16(b[lfanew+offNumSections:], 1)
	put.PutUint16(b[lfanew+offOptHeaderSize:], optSize)
	opt := lfanew + sizeCOFF
	put.PutUint16(b[opt:], magicPE32Plus)
	put.PutUint32(b[opt+offSectionAlign:], 0x1000)
	put.PutUint32(b[opt+offFileAlign:], align)
	put.PutUint32(b[opt+offSizeOfImage:], 0x2000)
	put.PutUint32(b[opt+offSizeOfHeaders:], uint32(headers))
	put.PutUint32(b[opt+108:], 16)
	sec := b[opt+optSize:]
	copy(sec, ".text")
	put.PutUint32(sec[8:], 4)
	put.PutUint32(sec[12:], 0x1000)
	put.PutUint32(sec[16:], align)
	put.PutUint32(sec[20:], uint32(headers))
	return append(append(b, "code"...), make([]byte, align-4)...)
}

var parts = []Section{
	{Name: ".osrel", Data: []byte("ID=cairn\n")},
	{Name: ".cmdline", Data: []byte("quiet")},
	{Name: ".linux", Data: bytes.Repeat([]byte("kernel"), 5000)},
}

// TestAssemble: a file is as good as its content, and one that is missing is named.
func TestAssemble(t *testing.T) {
	dir := t.TempDir()
	from, linux := filepath.Join(dir, "stub"), filepath.Join(dir, "linux")
	for file, data := range map[string][]byte{from: stub(0x400), linux: parts[2].Data} {
		if err := os.WriteFile(file, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := Build(stub(0x400), parts)
	if err != nil {
		t.Fatal(err)
	}
	mixed := []Section{parts[0], parts[1], {Name: ".linux", File: linux}}
	if got, err := Assemble(from, mixed); err != nil || !bytes.Equal(got, want) || mixed[2].Data != nil {
		t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
	}
	mixed[2].File = filepath.Join(dir, "none")
	if _, err := Assemble(from, mixed); err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("a missing file: %v", err)
	}
}

func TestBuild(t *testing.T) {
	out, err := Build(stub(0x400), parts)
	if err != nil {
		t.Fatal(err)
	}
	f, err := pe.NewFile(bytes.NewReader(out))
	if err != nil {
		t.Fatal(err)
	}
	if len(f.Sections) != 1+len(parts) {
		t.Fatalf("%d sections", len(f.Sections))
	}
	end := uint32(0)
	for i, s := range f.Sections {
		if s.VirtualAddress < end || s.VirtualAddress%0x1000 != 0 || s.Offset%0x200 != 0 {
			t.Errorf("section %s at %#x in memory, %#x in the file", s.Name, s.VirtualAddress, s.Offset)
		}
		end = s.VirtualAddress + s.VirtualSize
		if i == 0 {
			continue
		}
		data, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		if want := parts[i-1]; s.Name != want.Name || !bytes.Equal(data[:s.VirtualSize], want.Data) {
			t.Errorf("section %s has other content than was put in", s.Name)
		}
	}
	if size := f.OptionalHeader.(*pe.OptionalHeader64).SizeOfImage; size < end || size%0x1000 != 0 {
		t.Errorf("image size %#x, sections end at %#x", size, end)
	}
}

func TestBuildTwice(t *testing.T) {
	a, _ := Build(stub(0x400), parts)
	b, _ := Build(stub(0x400), parts)
	if !bytes.Equal(a, b) {
		t.Error("equal inputs give different files")
	}
}

func TestBuildRefuses(t *testing.T) {
	pe32 := stub(0x400)
	binary.LittleEndian.PutUint16(pe32[0x40+sizeCOFF:], 0x10b)
	for name, c := range map[string]struct {
		stub     []byte
		sections []Section
	}{
		"no PE file":        {[]byte("#!/bin/sh\n"), parts},
		"32-bit stub":       {pe32, parts},
		"no room in table":  {stub(0x1a0), parts},
		"long section name": {stub(0x400), []Section{{Name: ".toolongname", Data: []byte("x")}}},
		"empty section":     {stub(0x400), []Section{{Name: ".linux", Data: nil}}},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Build(c.stub, c.sections); err == nil {
				t.Error("was accepted")
			}
		})
	}
}

func FuzzBuild(f *testing.F) {
	f.Add(stub(0x400), []byte("x"))
	f.Fuzz(func(t *testing.T, stub, data []byte) {
		_, _ = Build(stub, []Section{{Name: ".cmdline", Data: data}})
	})
}
