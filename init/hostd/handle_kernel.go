package hostd

import (
	"bytes"
	"net/http"

	"golang.org/x/sys/unix"

	"cairn/init/hostd/client"
)

// getKernelLog answers the kernel's messages. They are read by root only: their
// addresses help who attacks the kernel.
func (h *Host) getKernelLog(w http.ResponseWriter, r *http.Request) { h.kernelLog(w, r, false) }

// deleteKernelLog answers them once more and empties the buffer.
func (h *Host) deleteKernelLog(w http.ResponseWriter, r *http.Request) { h.kernelLog(w, r, true) }

func (h *Host) kernelLog(w http.ResponseWriter, r *http.Request, empty bool) {
	text, err := h.System.KernelLog(empty)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	h.answer(w, client.KernelLog{Text: string(bytes.ToValidUTF8(text, []byte("?")))})
}

// KernelLog implements System.
func (*linux) KernelLog(empty bool) ([]byte, error) {
	size, err := unix.Klogctl(unix.SYSLOG_ACTION_SIZE_BUFFER, nil)
	if err != nil {
		return nil, err
	}
	action := unix.SYSLOG_ACTION_READ_ALL
	if empty {
		action = unix.SYSLOG_ACTION_READ_CLEAR
	}
	text := make([]byte, size)
	n, err := unix.Klogctl(action, text)
	return text[:max(n, 0)], err
}

func (h *Host) getTime(w http.ResponseWriter, r *http.Request) {
	ok, err := h.System.Synchronized()
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	h.answer(w, client.Time{Synchronized: ok})
}

// Synchronized implements System. The time daemon tells the kernel how far its
// clock may be off; without a daemon that has found a source it stays unknown.
func (*linux) Synchronized() (bool, error) {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return state != unix.TIME_ERROR && t.Status&unix.STA_UNSYNC == 0, err
}
