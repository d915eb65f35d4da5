// Package uki assembles unified kernel images: systemd's EFI stub with the
// kernel, its command line, its initramfs and microcode as further sections of
// the same PE file, so that one signature covers all of them.
//
// Only the section table grows; the stub's own bytes stay as they are. The
// result has no time and no checksum of the day, so equal inputs give equal
// files.
package uki

import (
	"debug/pe"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"
)

// Stub is where Debian's systemd-boot-efi has the stub of the machines there are images for.
const Stub = "/usr/lib/systemd/boot/efi/linuxx64.efi.stub"

// A Section is one part of a unified kernel image. The names the stub looks for
// are fixed: .osrel .cmdline .uname .ucode .initrd .linux.
type Section struct {
	Name string
	Data []byte
	File string // where Assemble reads Data, if it is not given
}

// Offsets of PE fields, from the specification.
const (
	offLfanew        = 0x3c // in the DOS header: where "PE\0\0" is
	sizeCOFF         = 24   // signature and COFF header
	offNumSections   = 6    // from the signature
	offOptHeaderSize = 20
	// From the start of the optional header, PE32+:
	offSizeInitData  = 8
	offSectionAlign  = 32
	offFileAlign     = 36
	offSizeOfImage   = 56
	offSizeOfHeaders = 60
	offCheckSum      = 64

	sizeSectionHeader = 40
	magicPE32Plus     = 0x20b
)

// image is a PE file being extended.
type image struct {
	data                       []byte
	pe, opt, table             int // offsets: signature, optional header, section table
	sections                   int
	sectionAlign, fileAlign    uint32
	sizeOfImage, sizeOfHeaders uint32
}

// Assemble is Build with a stub and sections of files.
func Assemble(stub string, sections []Section) ([]byte, error) {
	all := slices.Clone(sections)
	data, err := os.ReadFile(stub)
	for i := range all {
		if s := &all[i]; err == nil && s.Data == nil {
			s.Data, err = os.ReadFile(s.File)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("unified kernel image: %w", err)
	}
	image, err := Build(data, all)
	if err != nil {
		return nil, fmt.Errorf("unified kernel image: %w", err)
	}
	return image, nil
}

// Build appends sections to a stub.
func Build(stub []byte, sections []Section) ([]byte, error) {
	im, err := parse(stub)
	if err != nil {
		return nil, fmt.Errorf("EFI stub: %w", err)
	}
	for _, s := range sections {
		if err := im.append(s); err != nil {
			return nil, fmt.Errorf("section %s: %w", s.Name, err)
		}
	}
	im.finish()
	return im.data, nil
}

func parse(stub []byte) (*image, error) {
	if len(stub) < 0x40 || string(stub[:2]) != "MZ" {
		return nil, errors.New("not a PE file")
	}
	im := &image{data: append([]byte(nil), stub...), pe: int(le32(stub[offLfanew:]))}
	if im.pe < 0x40 || im.pe > len(stub)-sizeCOFF-offCheckSum-4 || string(stub[im.pe:im.pe+4]) != "PE\x00\x00" {
		return nil, errors.New("no PE header")
	}
	im.opt = im.pe + sizeCOFF
	if le16(stub[im.opt:]) != magicPE32Plus {
		return nil, errors.New("not a 64-bit PE file")
	}
	im.table = im.opt + int(le16(stub[im.pe+offOptHeaderSize:]))
	im.sections = int(le16(stub[im.pe+offNumSections:]))
	im.sectionAlign, im.fileAlign = le32(stub[im.opt+offSectionAlign:]), le32(stub[im.opt+offFileAlign:])
	im.sizeOfImage, im.sizeOfHeaders = le32(stub[im.opt+offSizeOfImage:]), le32(stub[im.opt+offSizeOfHeaders:])
	if int64(im.sizeOfHeaders) > int64(len(stub)) || im.table+im.sections*sizeSectionHeader > int(im.sizeOfHeaders) {
		return nil, errors.New("headers reach beyond the file")
	}
	if !powerOfTwo(im.sectionAlign) || !powerOfTwo(im.fileAlign) {
		return nil, errors.New("alignments are not powers of two")
	}
	return im, nil
}

// append adds one section after all others, in the file and in memory.
func (im *image) append(s Section) error {
	if len(s.Name) > 8 {
		return errors.New("name has more than 8 bytes")
	}
	if len(s.Data) == 0 {
		return errors.New("is empty")
	}
	h := im.table + im.sections*sizeSectionHeader
	if uint32(h+sizeSectionHeader) > im.sizeOfHeaders {
		return errors.New("no room left in the section table")
	}
	im.pad()
	raw := uint32(len(im.data))
	hdr := im.data[h : h+sizeSectionHeader]
	clear(hdr)
	copy(hdr, s.Name)
	put32(hdr[8:], uint32(len(s.Data)))
	put32(hdr[12:], align(im.sizeOfImage, im.sectionAlign))
	put32(hdr[16:], align(uint32(len(s.Data)), im.fileAlign))
	put32(hdr[20:], raw)
	put32(hdr[36:], pe.IMAGE_SCN_CNT_INITIALIZED_DATA|pe.IMAGE_SCN_MEM_READ)
	im.data = append(im.data, s.Data...)
	im.pad()
	im.sizeOfImage = align(im.sizeOfImage, im.sectionAlign) + align(uint32(len(s.Data)), im.sectionAlign)
	im.sections++
	return nil
}

// pad brings the file to its alignment.
func (im *image) pad() {
	n := int(align(uint32(len(im.data)), im.fileAlign)) - len(im.data)
	im.data = append(im.data, make([]byte, n)...)
}

func (im *image) finish() {
	binary.LittleEndian.PutUint16(im.data[im.pe+offNumSections:], uint16(im.sections))
	put32(im.data[im.opt+offSizeOfImage:], im.sizeOfImage)
	put32(im.data[im.opt+offCheckSum:], 0)
	var initialized uint32
	for i := range im.sections {
		h := im.data[im.table+i*sizeSectionHeader:]
		if le32(h[36:])&pe.IMAGE_SCN_CNT_INITIALIZED_DATA != 0 {
			initialized += le32(h[16:])
		}
	}
	put32(im.data[im.opt+offSizeInitData:], initialized)
}

func le16(b []byte) uint16      { return binary.LittleEndian.Uint16(b) }
func le32(b []byte) uint32      { return binary.LittleEndian.Uint32(b) }
func put32(b []byte, v uint32)  { binary.LittleEndian.PutUint32(b, v) }
func align(v, to uint32) uint32 { return (v + to - 1) &^ (to - 1) }
func powerOfTwo(v uint32) bool  { return v != 0 && v&(v-1) == 0 }
