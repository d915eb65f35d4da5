package hostd

import (
	"bytes"
	"net/http"

	"golang.org/x/sys/unix"

	"cairn/init/hostd/client"
	"cairn/init/hostd/oom"
	"cairn/init/network"
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

// getOutOfMemory answers which guests the kernel killed. Its log counts the time from
// its start.
func (h *Host) getOutOfMemory(w http.ResponseWriter, r *http.Request) {
	text, err := h.System.KernelLog(false)
	if err != nil {
		h.refuse(w, r, err)
		return
	}
	now, answer := network.Uptime(), client.OutOfMemory{Kills: []client.Kill{}}
	for _, k := range oom.Parse(string(text)) {
		answer.Kills = append(answer.Kills, client.Kill{Guest: k.Guest, PID: k.PID, Ago: max(now-k.At, 0)})
	}
	h.answer(w, answer)
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
