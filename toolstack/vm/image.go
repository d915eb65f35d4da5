package vm

import (
	"maps"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/hypervisor"
)

// Keys of sm_config of an image, which clients cannot change and copies do not have.
const (
	// bootKey is the boot of the host in which the image was begun.
	bootKey = "cairn:boot"
	// wakeKey is the state to which the VM is to come back by itself, which it left
	// only for a checkpoint. It stays until the VM is back, however often the
	// toolstack dies before.
	wakeKey = "cairn:wake"
)

// leftover is what there is of a domain that is gone, and whose row names an image
// and does not say that it is suspended: whoever saved it died, or lost its answer.
type leftover struct {
	// why the domain ended, if that is known.
	why hypervisor.Reason
	// sameBoot: the host runs since before the image was begun. Without it the domain
	// may have gone on when its image was complete, until the power went: libvirt lets
	// it if it is itself cut off at that moment.
	sameBoot bool
	// whole: nothing is missing in the image.
	whole bool
}

// mayBeGood is good as far as it is known without a look into the image.
func (l leftover) mayBeGood() bool {
	switch l.why {
	case hypervisor.ByGuest, hypervisor.ByCrash, hypervisor.ByDestroy:
		return false // it ended itself, later than its memory was saved if at all
	}
	return l.sameBoot
}

// good reports whether the image is the last moment of the domain. Else the machine
// is halted, and its disks are as a power cut leaves them.
func (l leftover) good() bool { return l.mayBeGood() && l.whole }

// beginImage notes whence an image is and whether its VM is to wake by itself.
func beginImage(tx *db.Tx, image api.VDIRef, boot string, wake api.VMPowerState) error {
	return noteImage(tx, image, map[string]string{bootKey: boot, wakeKey: string(wake)})
}

// endImage forgets that, for an image that is kept; one that is gone is fine.
func endImage(tx *db.Tx, image api.VDIRef) error {
	if _, err := db.Get(tx, image); err != nil {
		return nil
	}
	return noteImage(tx, image, map[string]string{bootKey: "", wakeKey: ""})
}

func noteImage(tx *db.Tx, image api.VDIRef, notes map[string]string) error {
	vdi, err := db.Edit(tx, image)
	if err != nil {
		return err
	}
	vdi.SMConfig = maps.Clone(vdi.SMConfig)
	for key, value := range notes {
		if vdi.SMConfig[key] = value; value == "" {
			delete(vdi.SMConfig, key)
		}
	}
	return nil
}
