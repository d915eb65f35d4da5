package main

import (
	"encoding/binary"
	"io"
	"os"
	"os/signal"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Codes of linux/input-event-codes.h.
const (
	evKey    = 1
	keyPower = 116
	// inputEvent is the size of struct input_event on 64-bit machines: a
	// 16-byte time, type, code and value.
	inputEvent = 24
)

// watchPower sends on off when a power button is pressed, or on SIGTERM and
// SIGINT (Ctrl-Alt-Del).
func watchPower(off chan<- string) {
	sig := make(chan os.Signal, 1)
	signal.Notify(sig, unix.SIGTERM, unix.SIGINT)
	go func() {
		<-sig
		offer(off, "signal")
	}()
	files, _ := filepath.Glob("/dev/input/event*")
	for _, file := range files {
		if f, err := os.Open(file); err == nil {
			go watchKeys(f, off)
		}
	}
}

func watchKeys(f io.Reader, off chan<- string) {
	b := make([]byte, inputEvent)
	for {
		if _, err := io.ReadFull(f, b); err != nil {
			return
		}
		if isPowerPress(b) {
			offer(off, "power-button")
		}
	}
}

// isPowerPress reports whether an input_event is the power key going down.
func isPowerPress(b []byte) bool {
	return binary.LittleEndian.Uint16(b[16:]) == evKey &&
		binary.LittleEndian.Uint16(b[18:]) == keyPower &&
		binary.LittleEndian.Uint32(b[20:]) == 1
}

// offer does not wait: one reason is enough.
func offer(off chan<- string, why string) {
	select {
	case off <- why:
	default:
	}
}
