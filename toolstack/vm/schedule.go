package vm

import (
	"context"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
)

// Keys of VMSS.schedule.
const (
	minuteKey = "min"
	hourKey   = "hour"
	daysKey   = "days"
)

// maxRetained bounds how many snapshots a schedule keeps of each VM.
const maxRetained = 10

// scheduleDefaults are the values of what a client leaves out.
var scheduleDefaults = map[string]string{minuteKey: "0", hourKey: "0", daysKey: "monday"}

var weekdays = []string{"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}

// schedules keeps the VMSS rows: when snapshots of VMs are wanted.
type schedules struct{ db *db.DB }

func (s schedules) register(r *api.Registry) {
	api.HandleVMSSCreate(r, s.create)
	api.HandleVMSSDestroy(r, s.destroy)
	api.HandleVMSSSetSchedule(r, s.setSchedule)
	api.HandleVMSSAddToSchedule(r, s.addToSchedule)
	api.HandleVMSSRemoveFromSchedule(r, s.removeFromSchedule)
	api.HandleVMSSSetFrequency(r, func(c *api.Call, ref api.VMSSRef, value api.VMSSFrequency) error {
		return s.change(c, ref, func(v *api.VMSS) error { v.Frequency = value; return nil })
	})
	api.HandleVMSSSetType(r, func(c *api.Call, ref api.VMSSRef, value api.VMSSType) error {
		return s.change(c, ref, func(v *api.VMSS) error { v.Type = value; return nil })
	})
	api.HandleVMSSSetRetainedSnapshots(r, func(c *api.Call, ref api.VMSSRef, value int64) error {
		return s.change(c, ref, func(v *api.VMSS) error { v.RetainedSnapshots = value; return checkRetained(value) })
	})
	api.HandleVMSSSetLastRunTime(r, func(c *api.Call, ref api.VMSSRef, value time.Time) error {
		return s.change(c, ref, func(v *api.VMSS) error { v.LastRunTime = value; return nil })
	})
}

func (s schedules) change(ctx context.Context, ref api.VMSSRef, change func(*api.VMSS) error) error {
	return db.Modify(ctx, s.db, ref, func(_ *db.Tx, v *api.VMSS) error { return change(v) })
}

func (s schedules) create(c *api.Call, args *api.VMSS) (api.VMSSRef, error) {
	v := args.Clone()
	v.UUID, v.LastRunTime = api.NewUUID(), time.Time{}
	if err := checkRetained(v.RetainedSnapshots); err != nil {
		return "", err
	}
	schedule, err := checkSchedule(v.Schedule)
	if err != nil {
		return "", err
	}
	v.Schedule = schedule
	var ref api.VMSSRef
	err = s.db.Update(c, func(tx *db.Tx) error {
		ref = db.Insert(tx, v)
		return nil
	})
	return ref, err
}

// destroy: snapshots of no VM may stop unnoticed.
func (s schedules) destroy(c *api.Call, ref api.VMSSRef) error {
	return s.db.Update(c, func(tx *db.Tx) error {
		v, err := db.Get(tx, ref)
		if err != nil {
			return err
		}
		if len(v.VMs) > 0 {
			return api.ErrVMSSHasVM()
		}
		return db.Delete(tx, ref)
	})
}

func (s schedules) setSchedule(c *api.Call, ref api.VMSSRef, value map[string]string) error {
	return s.change(c, ref, func(v *api.VMSS) (err error) {
		v.Schedule, err = checkSchedule(value)
		return err
	})
}

func (s schedules) addToSchedule(c *api.Call, ref api.VMSSRef, key, value string) error {
	return s.change(c, ref, func(v *api.VMSS) (err error) {
		changed := maps.Clone(v.Schedule)
		if changed == nil {
			changed = map[string]string{}
		}
		changed[key] = value // all keys are there always, so to add one is to replace it
		v.Schedule, err = checkSchedule(changed)
		return err
	})
}

// removeFromSchedule gives a key back its default.
func (s schedules) removeFromSchedule(c *api.Call, ref api.VMSSRef, key string) error {
	return s.change(c, ref, func(v *api.VMSS) (err error) {
		changed := maps.Clone(v.Schedule)
		delete(changed, key)
		v.Schedule, err = checkSchedule(changed)
		return err
	})
}

func checkRetained(n int64) error {
	if n < 1 || n > maxRetained {
		return api.ErrInvalidValue("retained_snapshots", strconv.FormatInt(n, 10))
	}
	return nil
}

// checkSchedule returns a schedule with all its keys. Snapshots begin on the
// quarter of an hour.
func checkSchedule(value map[string]string) (map[string]string, error) {
	full := maps.Clone(scheduleDefaults)
	for _, key := range slices.Sorted(maps.Keys(value)) {
		text := value[key]
		ok := false
		switch key {
		case minuteKey:
			ok = slices.Contains([]string{"0", "15", "30", "45"}, text)
		case hourKey:
			n, err := strconv.Atoi(text)
			ok = err == nil && n >= 0 && n <= 23 && text == strconv.Itoa(n)
		case daysKey:
			ok = isDays(text)
		}
		if !ok {
			return nil, api.ErrInvalidValue("schedule:"+key, text)
		}
		full[key] = text
	}
	return full, nil
}

func isDays(text string) bool {
	for _, day := range strings.Split(text, ",") {
		if !slices.Contains(weekdays, strings.ToLower(strings.TrimSpace(day))) {
			return false
		}
	}
	return true
}
