package supervise

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"cairn/init/supervise/catalogue"
)

// scenarios are the catalogues of the tests.
var scenarios = map[string]func(dir string) []catalogue.Service{
	"basic": func(dir string) []catalogue.Service {
		return []catalogue.Service{
			service("first", "plain", nil),
			service("second", "second", func(s *catalogue.Service) { s.Needs = []string{"first"} }),
			service("once", "once", func(s *catalogue.Service) {
				s.Class, s.Ready, s.Needs = catalogue.Oneshot, catalogue.Ready{Kind: catalogue.Exit}, []string{"first"}
			}),
			service("socket", "socket", func(s *catalogue.Service) {
				s.Ready = catalogue.Ready{Kind: catalogue.Socket, Path: filepath.Join(dir, "run/ready.sock")}
				s.Dirs = []catalogue.Dir{{Path: filepath.Join(dir, "run"), Mode: 0o700}}
				s.Env = []string{"READY_SOCKET=" + s.Ready.Path}
			}),
			service("probed", "silent", func(s *catalogue.Service) {
				s.Ready = catalogue.Ready{Kind: catalogue.Probe, Argv: []string{testProgram(), serviceArg, "once"}}
			}),
		}
	},
	"sockets": func(dir string) []catalogue.Service {
		return []catalogue.Service{
			service("web", "web", func(s *catalogue.Service) {
				s.Sockets = []catalogue.Listen{
					{Name: "local", Network: "unix", Address: filepath.Join(dir, "web.sock"), Mode: 0o660},
					{Name: "tcp", Network: "tcp", Address: "[::1]:0"},
				}
			}),
			service("idle", "plain", nil),
		}
	},
	"watchdog": func(string) []catalogue.Service {
		return []catalogue.Service{
			service("hangs", "hangs", func(s *catalogue.Service) { s.Watchdog = 200 * time.Millisecond }),
			service("pings", "pings", func(s *catalogue.Service) { s.Watchdog = 5 * time.Second }),
		}
	},
	"burst": func(string) []catalogue.Service {
		return []catalogue.Service{
			service("broken", "broken", func(s *catalogue.Service) { s.Class = catalogue.Critical }),
			service("fine", "plain", nil),
		}
	},
	"family": func(string) []catalogue.Service {
		return []catalogue.Service{
			service("manager", "manager", func(s *catalogue.Service) { s.Kill = catalogue.KillMain }),
		}
	},
	"impostor": func(string) []catalogue.Service {
		return []catalogue.Service{
			service("victim", "silent", func(s *catalogue.Service) { s.StartTimeout = time.Minute }),
			service("barrier", "barrier", nil),
		}
	},
}

// serviceRole is one of the services.
func serviceRole(args []string) int {
	fmt.Printf("main pid=%d role=%s\n", os.Getpid(), args[0])
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	switch args[0] {
	case "once":
		return 0
	case "broken":
		return 3
	case "plain", "second":
		say(daemon.SdNotifyReady)
	case "socket":
		l := must(net.Listen("unix", os.Getenv("READY_SOCKET")))
		defer l.Close()
	case "web":
		serveWeb()
	case "hangs":
		say(daemon.SdNotifyReady)
		signal.Reset(syscall.SIGABRT)
	case "pings":
		go ping()
	case "manager":
		startGuest()
		say(daemon.SdNotifyReady)
	case "guest":
		fmt.Printf("guest pid=%d\n", os.Getpid())
	case "barrier":
		say(daemon.SdNotifyReady)
		barrier()
		fmt.Println("barrier-passed")
	}
	<-term
	fmt.Printf("terminated role=%s\n", args[0])
	return 0
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func say(state string) {
	if !must(daemon.SdNotify(false, state)) {
		panic("nobody to notify")
	}
}

// serveWeb answers with its pid on every socket it was given, by name.
func serveWeb() {
	listeners := must(activation.ListenersWithNames())
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, os.Getpid()) })
	for name, ls := range listeners {
		for _, l := range ls {
			fmt.Printf("serving name=%s addr=%s\n", name, l.Addr())
			go http.Serve(l, handler)
		}
	}
	say(daemon.SdNotifyReady)
}

// barrier waits until everything said so far was handled: the receiver closes
// the pipe.
func barrier() {
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	fd := must(unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0))
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	if err := unix.Sendmsg(fd, []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), to, 0); err != nil {
		panic(err)
	}
	w.Close()
	if n, err := r.Read(make([]byte, 1)); n != 0 || err == nil {
		panic("the barrier was answered")
	}
}

func ping() {
	every := must(daemon.SdWatchdogEnabled(false))
	say(daemon.SdNotifyReady)
	fmt.Printf("watchdog every=%s\n", every)
	for range time.Tick(every / 2) {
		say(daemon.SdNotifyWatchdog)
	}
}

// startGuest leaves a process that outlives this one, in its own session and
// with its own output, as a guest has. A second start finds the first one's.
func startGuest() {
	mark := strings.TrimSuffix(os.Getenv("NOTIFY_SOCKET"), "notify") + "guest"
	if _, err := os.Stat(mark); err == nil {
		return
	}
	if err := os.WriteFile(mark, nil, 0o600); err != nil {
		panic(err)
	}
	cmd := exec.Command(testProgram(), serviceArg, "guest")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
}
