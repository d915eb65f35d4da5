package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// obeyButtons waits for KEY_POWER on every input device there is, and returns
// how many there are.
func obeyButtons() (count int) {
	for i := range 8 {
		f, err := os.Open(fmt.Sprintf("/dev/input/event%d", i))
		if err != nil {
			continue
		}
		count++
		go func() {
			const keyEvent, keyPower = 1, 116
			e := make([]byte, 24) // struct input_event
			for {
				if n, err := f.Read(e); err != nil || n != len(e) {
					return
				}
				if e[16] == keyEvent && e[18] == keyPower {
					must(unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF))
				}
			}
		}()
	}
	return count
}
