package disk

import (
	"errors"
	"fmt"
	"maps"
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

// CD is what an ISO image holds and who can start it.
type CD struct {
	Label string
	// Files is the ISO's own file system; with any, it has long names.
	Files map[string][]byte
	// UEFI is a FAT file system that UEFI boots from; empty: it does not.
	UEFI map[string][]byte
	// BIOS names the file of Files that a BIOS loads; empty: it does not.
	BIOS string
}

// BuildCD writes an ISO image. What it can be started by are entries of its El
// Torito catalog; the FAT file system is a file of the ISO as well.
func BuildCD(cd CD, buildTime int64, file string) error {
	if err := os.Setenv("SOURCE_DATE_EPOCH", strconv.FormatInt(buildTime, 10)); err != nil {
		return err
	}
	files := maps.Clone(cd.Files)
	if files == nil {
		files = map[string][]byte{}
	}
	if len(cd.UEFI) > 0 {
		boot, err := esp(cd.UEFI, filepath.Dir(file))
		if err != nil {
			return fmt.Errorf("cd %s: %w", cd.Label, err)
		}
		files[espName] = boot
	}
	if err := iso(cd.options(), files, file); err != nil {
		return fmt.Errorf("cd %s: %w", cd.Label, err)
	}
	return nil
}

// options of the ISO file system; the BIOS takes the catalog's first entry.
func (cd CD) options() iso9660.FinalizeOptions {
	catalog := &iso9660.ElTorito{BootCatalog: "/BOOT.CAT"}
	if cd.BIOS != "" {
		entry := &iso9660.ElToritoEntry{Platform: iso9660.BIOS, Emulation: iso9660.NoEmulation, BootFile: cd.BIOS, BootTable: true}
		catalog.Entries = append(catalog.Entries, entry)
	}
	if len(cd.UEFI) > 0 {
		entry := &iso9660.ElToritoEntry{Platform: iso9660.EFI, Emulation: iso9660.NoEmulation, BootFile: espName}
		// Less than two sectors tell UEFI to take all that follows; the true number
		// does not fit its 16 bits.
		entry.SetLoadSize(1)
		catalog.Entries = append(catalog.Entries, entry)
	}
	return iso9660.FinalizeOptions{VolumeIdentifier: cd.Label, RockRidge: len(cd.Files) > 0, ElTorito: catalog}
}

// esp is a FAT file system with the files, made beside the image.
func esp(files map[string][]byte, beside string) ([]byte, error) {
	dir, err := os.MkdirTemp(beside, "cd")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	image := filepath.Join(dir, "esp")
	if err := fat(image, files); err != nil {
		return nil, err
	}
	return os.ReadFile(image)
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

// iso makes the ISO image.
func iso(options iso9660.FinalizeOptions, files map[string][]byte, image string) error {
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
	fs, err := d.CreateFilesystem(diskfsdisk.FilesystemSpec{FSType: filesystem.TypeISO9660, VolumeLabel: options.VolumeIdentifier})
	if err != nil {
		return errors.Join(err, d.Close())
	}
	disc, ok := fs.(*iso9660.FileSystem)
	if !ok {
		return errors.Join(errors.New("not an ISO file system"), d.Close())
	}
	err = writeFiles(fs, files)
	if err == nil {
		err = disc.Finalize(options)
	}
	return errors.Join(err, d.Close())
}
