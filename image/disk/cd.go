package disk

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/diskfs/go-diskfs"
	diskfsdisk "github.com/diskfs/go-diskfs/disk"
	"github.com/diskfs/go-diskfs/filesystem"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"
)

const (
	isoBlock = 2048
	// espName is where a CD keeps the file system that UEFI boots from.
	espName = "/EFI.IMG"
	// leastFAT is what FAT32 needs to have enough clusters to be one.
	leastFAT = 40 * mib
)

// BuildCD writes an ISO image that UEFI boots: its El Torito entry is a FAT file
// system with the given files (path → file), which the ISO holds as well.
func BuildCD(label string, files map[string][]byte, buildTime int64, file string) error {
	if err := os.Setenv("SOURCE_DATE_EPOCH", strconv.FormatInt(buildTime, 10)); err != nil {
		return err
	}
	dir, err := os.MkdirTemp(filepath.Dir(file), "cd")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	esp := filepath.Join(dir, "esp")
	if err := fat(esp, files); err != nil {
		return fmt.Errorf("cd %s: %w", label, err)
	}
	boot, err := os.ReadFile(esp)
	if err != nil {
		return err
	}
	if err := iso(label, map[string][]byte{espName: boot}, file); err != nil {
		return fmt.Errorf("cd %s: %w", label, err)
	}
	return nil
}

// fat makes a FAT image that has room for the files.
func fat(image string, files map[string][]byte) error {
	size := int64(leastFAT)
	for _, data := range files {
		size += (int64(len(data)) + mib - 1) / mib * mib
	}
	d, err := diskfs.Create(image, size, diskfs.SectorSize512)
	if err != nil {
		return err
	}
	fs, err := d.CreateFilesystem(diskfsdisk.FilesystemSpec{FSType: filesystem.TypeFat32, VolumeLabel: "BOOT", Reproducible: true})
	if err != nil {
		return errors.Join(err, d.Close())
	}
	return errors.Join(writeFiles(fs, files), fs.Close(), d.Close())
}

// iso makes the ISO image around the file UEFI boots.
func iso(label string, files map[string][]byte, image string) error {
	if err := os.RemoveAll(image); err != nil {
		return err
	}
	size := int64(mib)
	for _, data := range files {
		size += (int64(len(data)) + isoBlock - 1) / isoBlock * isoBlock
	}
	d, err := diskfs.Create(image, size, diskfs.SectorSize(isoBlock))
	if err != nil {
		return err
	}
	fs, err := d.CreateFilesystem(diskfsdisk.FilesystemSpec{FSType: filesystem.TypeISO9660, VolumeLabel: label})
	if err != nil {
		return errors.Join(err, d.Close())
	}
	disc, ok := fs.(*iso9660.FileSystem)
	if !ok {
		return errors.Join(errors.New("not an ISO file system"), d.Close())
	}
	entry := &iso9660.ElToritoEntry{Platform: iso9660.EFI, Emulation: iso9660.NoEmulation, BootFile: espName}
	// Less than two sectors tell UEFI to take all that follows; the true number
	// does not fit its 16 bits.
	entry.SetLoadSize(1)
	err = writeFiles(fs, files)
	if err == nil {
		err = disc.Finalize(iso9660.FinalizeOptions{
			VolumeIdentifier: label,
			ElTorito:         &iso9660.ElTorito{BootCatalog: "/BOOT.CAT", Entries: []*iso9660.ElToritoEntry{entry}},
		})
	}
	return errors.Join(err, d.Close())
}
