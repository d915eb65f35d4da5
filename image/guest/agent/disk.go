package agent

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Pattern is an endless, incompressible and repeatable stream: what fill writes,
// and what a test compares with. Equal seeds give equal bytes.
func Pattern(seed int64) io.Reader {
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], uint64(seed))
	return rand.NewChaCha8(key)
}

// chunk is how much is read or written at once.
const chunk = 1 << 20

// Scattered makes a number of writes in [at, at+size): of 512 bytes to 64 KiB of
// Pattern, at random places. Equal seeds make equal writes, so a test that makes them
// too knows what a guest's disk holds. size is 1 MiB at least; b is valid during write.
func Scattered(seed int64, writes int, at, size int64, write func(b []byte, off int64) error) error {
	const sector, most = 512, 128
	data, place := Pattern(seed), rand.New(rand.NewPCG(uint64(seed), 0))
	b := make([]byte, sector*most)
	for range writes {
		n := sector * (1 + place.Int64N(most))
		off := at + sector*place.Int64N((size-n)/sector+1)
		if _, err := io.ReadFull(data, b[:n]); err != nil {
			return err
		}
		if err := write(b[:n], off); err != nil {
			return err
		}
	}
	return nil
}

// device is a disk as the kernel names it.
type device struct {
	name, serial string
	bytes        int64
}

func blockDevices() ([]device, error) {
	entries, err := os.ReadDir("/sys/block")
	if err != nil {
		return nil, err
	}
	var all []device
	for _, e := range entries {
		dir := filepath.Join("/sys/block", e.Name())
		if _, err := os.Stat(filepath.Join(dir, "device")); err != nil {
			continue // made by software
		}
		all = append(all, device{name: e.Name(), serial: serial(dir), bytes: sizeOf(e.Name())})
	}
	return all, nil
}

// serial reads the number from virtio, or from page 0x80 of SCSI's product data,
// which has a header of four bytes.
func serial(dir string) string {
	if text, err := os.ReadFile(filepath.Join(dir, "serial")); err == nil {
		return strings.TrimSpace(string(text))
	}
	page, err := os.ReadFile(filepath.Join(dir, "device/vpd_pg80"))
	if err != nil || len(page) < 4 {
		return ""
	}
	return strings.TrimSpace(string(bytes.Trim(page[4:], "\x00")))
}

func sizeOf(name string) int64 {
	text, _ := os.ReadFile(filepath.Join("/sys/block", name, "size"))
	return 512 * integer(strings.TrimSpace(string(text)))
}

// A disk or a NIC that was there at the start, or was plugged in a moment ago, is
// seen by the kernel some time later: minutes on a busy host that is emulated itself.
const findEvery = 50 * time.Millisecond

var findLimit = 3 * time.Minute // tests do not wait

// find is the disk with a name or a serial number.
func find(what string) (device, error) {
	for deadline := time.Now().Add(findLimit); ; time.Sleep(findEvery) {
		all, err := blockDevices()
		if err != nil {
			return device{}, err
		}
		for _, d := range all {
			if d.name == what || d.serial == what {
				return d, nil
			}
		}
		if time.Now().After(deadline) {
			return device{}, fmt.Errorf("no disk %s", what)
		}
	}
}

// open opens a disk that was found. The kernel shows a new disk a moment before its
// driver answers; its size counts from then on.
func open(d device, flag int) (*os.File, error) {
	for deadline := time.Now().Add(findLimit); ; time.Sleep(findEvery) {
		f, err := os.OpenFile("/dev/"+d.name, flag, 0)
		if !errors.Is(err, unix.ENXIO) && !errors.Is(err, unix.ENOENT) || time.Now().After(deadline) {
			return f, err
		}
	}
}

func disks(w io.Writer, _ []string) error {
	all, err := blockDevices()
	for _, d := range all {
		fmt.Fprintf(w, "disk name=%s serial=%s bytes=%d\n", d.name, d.serial, d.bytes)
	}
	return err
}

func sum(w io.Writer, words []string) error {
	d, err := find(words[0])
	if err != nil {
		return err
	}
	f, err := open(d, os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := forget(f); err != nil {
		return err
	}
	h := sha256.New()
	n, err := io.CopyBuffer(h, onlyReader{f}, make([]byte, chunk))
	if err != nil {
		return err
	}
	fmt.Fprintf(w, "sum name=%s serial=%s bytes=%d sha256=%x\n", d.name, d.serial, n, h.Sum(nil))
	return nil
}

// onlyReader hides what would make io.Copy go another way.
type onlyReader struct{ io.Reader }

// forget makes the kernel read the device again, whatever it remembers.
func forget(f *os.File) error {
	if err := unix.IoctlSetInt(int(f.Fd()), unix.BLKFLSBUF, 0); err != nil {
		return fmt.Errorf("%s: flush: %w", f.Name(), err)
	}
	return nil
}

// target opens a disk for writing in [at, at+size).
func target(what string, at, size int64, flag int) (device, *os.File, error) {
	d, err := find(what)
	if err != nil {
		return d, nil, err
	}
	f, err := open(d, os.O_WRONLY|flag)
	if err != nil {
		return d, nil, err
	}
	if bytes := sizeOf(d.name); at+size > bytes {
		return d, nil, errors.Join(fmt.Errorf("%s has %d bytes only", d.name, bytes), f.Close())
	}
	return d, f, nil
}

func fill(w io.Writer, words []string) error {
	size, at := integer(words[2])<<20, int64(0)
	if len(words) > 3 {
		at = integer(words[3]) << 20
	}
	d, f, err := target(words[0], at, size, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	to := io.MultiWriter(io.NewOffsetWriter(f, at), h)
	if _, err := io.CopyBuffer(to, io.LimitReader(Pattern(integer(words[1])), size), make([]byte, chunk)); err != nil {
		return err
	}
	if err := errors.Join(f.Sync(), forget(f)); err != nil {
		return err
	}
	fmt.Fprintf(w, "fill name=%s serial=%s at=%d bytes=%d sha256=%x\n", d.name, d.serial, at, size, h.Sum(nil))
	return nil
}

// scatter has each write reach the device before the next one.
func scatter(w io.Writer, words []string) error {
	writes, at, size := integer(words[2]), integer(words[3])<<20, integer(words[4])<<20
	d, f, err := target(words[0], at, size, os.O_SYNC)
	if err != nil {
		return err
	}
	defer f.Close()
	err = Scattered(integer(words[1]), int(writes), at, size, func(b []byte, off int64) error {
		_, err := f.WriteAt(b, off)
		return err
	})
	if err := errors.Join(err, forget(f)); err != nil {
		return err
	}
	fmt.Fprintf(w, "scatter name=%s serial=%s writes=%d\n", d.name, d.serial, writes)
	return nil
}

// cd is where a CD is mounted.
const cd = "/cd"

func mountCD(w io.Writer, words []string) error {
	name := "sr0"
	if len(words) > 0 {
		d, err := find(words[0])
		if err != nil {
			return err
		}
		name = d.name
	}
	if err := os.MkdirAll(cd, 0o755); err != nil {
		return err
	}
	if err := mountWhenReady("/dev/" + name); err != nil {
		return err
	}
	files, err := os.ReadDir(cd)
	for _, f := range files {
		fmt.Fprintf(w, "cd file=%q dir=%v\n", f.Name(), f.IsDir())
	}
	return err
}

// mountWhenReady tries again for a minute: a drive fails the first reads after its
// medium has changed, and that is how the kernel learns of the change; and the
// drivers come after the greeting, the one of this file system last.
func mountWhenReady(from string) (err error) {
	for range 240 {
		if err = unix.Mount(from, cd, "iso9660", unix.MS_RDONLY, ""); err == nil {
			return nil
		}
		time.Sleep(250 * time.Millisecond)
	}
	return fmt.Errorf("mount %s: %w", from, err)
}

func unmountCD(io.Writer, []string) error { return unix.Unmount(cd, 0) }
