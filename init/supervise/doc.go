// Package supervise is PID 1: it starts the services of the catalogue, keeps
// them running, feeds the watchdog, and takes the host down in order.
//
// What to do is decided by the pure packages engine (services) and watchdog
// (who feeds the device). This package is the thin shell around them: it turns
// signals, exits, datagrams and files into events, and actions into system
// calls.
//
// Invariants:
//   - One goroutine, the main loop, owns the engine and the watchdog, reaps
//     every child, and never blocks: starting a process, touching a disk and
//     writing to a terminal happen elsewhere. Only this loop feeds the watchdog,
//     so if it stops, the machine resets.
//   - Wait4 is called in one place. Nothing in PID 1 may use os/exec or
//     os.StartProcess with Wait: the exit would be taken from it. Orphans are
//     reaped there as well.
//   - A process is started in its cgroup (CLONE_INTO_CGROUP), so there is no
//     moment in which it or its children could escape it.
//   - A notify message counts for a service only if the kernel says that it came
//     from the service's main process, or from its cgroup where the group is the
//     service's own (KillGroup).
//   - Stopping or restarting a service never touches /machine, where the guests
//     are. They get SIGTERM only when the whole host goes down.
//   - Listening sockets are opened before the first service starts and never
//     closed, so a restart refuses no connection.
//   - A panic is logged and costs one event, not the host. An error in setting up
//     is logged, and the rest is tried: a half-made host that says what it lacks
//     is better than a kernel panic.
//
// # Shutdown
//
// SIGUSR2 powers off, SIGTERM and SIGINT (Ctrl-Alt-Del) reboot, SIGUSR1 halts. The services
// are stopped in reverse order, each with its grace. Then everything that is
// left, guests included, gets SIGTERM and ten seconds, then SIGKILL. Logs are
// closed, all stored file systems unmounted (newest mount first, so STATE and
// LOGS after what is bound from them), and what stays busy is made read-only and
// named. The watchdog is fed until four minutes after the request and no longer.
//
// # Sockets
//
// LISTEN_PID must be the pid of the process that uses the sockets, which only
// that process knows before it runs. So a service with sockets is started
// through the exec-service role of this binary, which sets LISTEN_PID to its own
// pid and becomes the service by execve (see ExecService). Other services are
// started directly. WATCHDOG_PID is left out, which sd_watchdog_enabled(3)
// takes as "whoever reads this".
//
// # Testing a hung PID 1, and acting inside a host
//
// cairn.debug=<tty> on the kernel's command line adds a service on that serial
// port by which the lab acts inside the host (package init/debug).
//
// PID 1 cannot be stopped by a signal from its own namespace, so the kernel
// command line has cairn.test.hang-pid1=<seconds>: that long after the start
// the main loop stops for good. Both count only where /sys/firmware/efi does not
// exist. Cairn is installed on UEFI machines only and its command line is fixed
// in the signed UKI, so nothing but a lab that boots the kernel directly can
// meet both conditions.
package supervise
