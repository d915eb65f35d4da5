package dm

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// SuperblockSize is what ReadSuperblock reads from the hash device.
const SuperblockSize = 512

const (
	sectorSize  = 512
	maxSalt     = 256
	verityMagic = "verity\x00\x00"
	// The digest is settled. The superblock itself is not covered by the root
	// hash, so an algorithm it names freely could be one that is easy to collide.
	verityDigest   = "sha256"
	verityHashSize = 32
)

// Superblock is the head of a hash device in veritysetup's format, version 1.
type Superblock struct {
	UUID          [16]byte
	DataBlockSize uint32
	HashBlockSize uint32
	DataBlocks    uint64
	Salt          []byte
}

// ReadSuperblock reads and checks the first 512 bytes of a hash device.
func ReadSuperblock(r io.ReaderAt) (Superblock, error) {
	var buf [SuperblockSize]byte
	if _, err := r.ReadAt(buf[:], 0); err != nil {
		return Superblock{}, fmt.Errorf("verity superblock: %w", err)
	}
	return ParseSuperblock(buf[:])
}

// ParseSuperblock decodes a superblock. Every field is checked, because it
// comes from a disk and nothing vouches for it yet.
func ParseSuperblock(b []byte) (Superblock, error) {
	if len(b) < SuperblockSize || string(b[:8]) != verityMagic {
		return Superblock{}, errors.New("verity superblock: no signature")
	}
	le := binary.LittleEndian
	if version, kind := le.Uint32(b[8:]), le.Uint32(b[12:]); version != 1 || kind != 1 {
		return Superblock{}, fmt.Errorf("verity superblock: version %d, hash type %d; want 1, 1", version, kind)
	}
	s := Superblock{
		DataBlockSize: le.Uint32(b[64:]), HashBlockSize: le.Uint32(b[68:]), DataBlocks: le.Uint64(b[72:]),
	}
	copy(s.UUID[:], b[16:32])
	if algorithm := cString(b[32:64]); algorithm != verityDigest {
		return Superblock{}, fmt.Errorf("verity superblock: algorithm %q, want %s", algorithm, verityDigest)
	}
	salt := int(le.Uint16(b[80:]))
	if salt > maxSalt {
		return Superblock{}, fmt.Errorf("verity superblock: salt of %d bytes", salt)
	}
	s.Salt = append([]byte{}, b[88:88+salt]...)
	return s, s.check()
}

func (s Superblock) check() error {
	for _, size := range []uint32{s.DataBlockSize, s.HashBlockSize} {
		if size < sectorSize || size > 64<<10 || size&(size-1) != 0 {
			return fmt.Errorf("verity superblock: block size %d", size)
		}
	}
	// 1 EiB of data is beyond any image and keeps the arithmetic from wrapping.
	if s.DataBlocks == 0 || s.DataBlocks > (1<<60)/uint64(s.DataBlockSize) {
		return fmt.Errorf("verity superblock: %d data blocks", s.DataBlocks)
	}
	return nil
}

// DataSize is the size in bytes of the data the tree covers.
func (s Superblock) DataSize() uint64 { return s.DataBlocks * uint64(s.DataBlockSize) }

// TreeSize is the size in bytes of superblock and hash tree together.
func (s Superblock) TreeSize() uint64 {
	perBlock := uint64(s.HashBlockSize) / verityHashSize
	blocks := s.treeStart()
	for level := s.DataBlocks; level > 1; {
		level = (level + perBlock - 1) / perBlock
		blocks += level
	}
	return max(blocks*uint64(s.HashBlockSize), SuperblockSize)
}

// treeStart is the first block of the tree, behind the superblock.
func (s Superblock) treeStart() uint64 {
	return (SuperblockSize + uint64(s.HashBlockSize) - 1) / uint64(s.HashBlockSize)
}

// Check tells whether data and hash device are large enough for the tree.
func (s Superblock) Check(dataSize, hashSize uint64) error {
	if s.DataSize() > dataSize {
		return fmt.Errorf("verity: %d bytes of data on a device of %d", s.DataSize(), dataSize)
	}
	if s.TreeSize() > hashSize {
		return fmt.Errorf("verity: %d bytes of tree on a device of %d", s.TreeSize(), hashSize)
	}
	return nil
}

// MapUUID is the name under which cryptsetup would list the mapping.
func (s Superblock) MapUUID(name string) string {
	return "CRYPT-VERITY-" + hex.EncodeToString(s.UUID[:]) + "-" + name
}

// RestartOnCorruption makes the kernel log the corrupted block and restart the
// machine at once, instead of handing an I/O error to whoever read it.
const RestartOnCorruption = "restart_on_corruption"

// Target returns the table line that opens the tree. data and hash are device
// numbers as major:minor, options are verity's optional parameters.
func (s Superblock) Target(data, hash, rootHash string, options ...string) Target {
	salt := "-" // how verity spells an empty salt
	if len(s.Salt) > 0 {
		salt = hex.EncodeToString(s.Salt)
	}
	params := fmt.Sprintf("1 %s %s %d %d %d %d %s %s %s", data, hash,
		s.DataBlockSize, s.HashBlockSize, s.DataBlocks, s.treeStart(), verityDigest, rootHash, salt)
	if len(options) > 0 {
		params += fmt.Sprintf(" %d %s", len(options), strings.Join(options, " "))
	}
	return Target{Length: s.DataSize() / sectorSize, Type: "verity", Params: params}
}
