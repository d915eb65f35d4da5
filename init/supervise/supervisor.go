package supervise

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"cairn/init/supervise/catalogue"
	"cairn/init/supervise/engine"
	"cairn/init/supervise/notify"
)

// Supervisor is the shell around the engine. Its fields belong to the main
// loop, but for those a start reads and nobody writes.
type Supervisor struct {
	Config
	engine  *engine.Engine
	specs   map[string]catalogue.Service
	sockets map[string][]socket
	notify  *notify.Server
	watcher *watcher

	events   chan engine.Event // answers of goroutines
	signals  chan os.Signal
	children chan os.Signal
	finished chan engine.Kind
	alone    chan struct{} // no child is left
	look     chan struct{} // reap now, somebody waits for alone

	inFlight int              // starts without an answer
	early    []earlyEvent     // of processes whose start is in flight
	probes   map[int]string   // probe processes
	refused  time.Duration    // last refused message that was logged
	hang     <-chan time.Time // HangAfter
	timer    *time.Timer      // of engine.Next
}

// New opens the notify and listening sockets. A socket that cannot be opened is
// logged, and its service starts without.
func New(cfg Config) (*Supervisor, error) {
	e, err := engine.New(cfg.Services)
	if err != nil {
		return nil, err
	}
	s := &Supervisor{
		Config: cfg, engine: e,
		specs: map[string]catalogue.Service{}, sockets: map[string][]socket{}, probes: map[int]string{},
		events: make(chan engine.Event, 16), signals: make(chan os.Signal, 4), children: make(chan os.Signal, 1),
		finished: make(chan engine.Kind, 1), alone: make(chan struct{}, 1), look: make(chan struct{}, 1),
		timer: time.NewTimer(0),
	}
	for _, spec := range cfg.Services {
		s.specs[spec.Name] = spec
	}
	if s.notify, err = notify.Listen(cfg.NotifySocket); err != nil {
		return nil, err
	}
	if s.watcher, err = newWatcher(s.events); err != nil {
		return nil, err
	}
	s.listen()
	if cfg.HangAfter > 0 {
		s.hang = time.After(cfg.HangAfter)
	}
	return s, nil
}

// Run supervises until a shutdown has ended, and returns its kind.
func (s *Supervisor) Run() engine.Kind {
	signal.Notify(s.children, syscall.SIGCHLD)
	signal.Notify(s.signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2)
	defer signal.Stop(s.children)
	defer signal.Stop(s.signals)
	go s.keepUp("notify-server", func() {
		if err := s.notify.Serve(); err != nil {
			s.Log.Error("notify-failed", "err", err)
		}
	})
	go s.keepUp("socket-watcher", s.watcher.run)
	feed := time.NewTicker(feedEvery)
	defer feed.Stop()
	s.guard("boot", func() { s.step(engine.Boot{}) })
	for {
		var kind engine.Kind
		s.keepUp("main-loop", func() { kind = s.once(feed.C) })
		if kind != "" {
			return kind
		}
	}
}

// once handles one event. It returns the kind of a shutdown that has ended.
func (s *Supervisor) once(feed <-chan time.Time) engine.Kind {
	if at, ok := s.engine.Next(); ok {
		s.timer.Reset(max(at-s.Uptime(), time.Millisecond))
	} else {
		s.timer.Stop()
	}
	select {
	case <-s.children:
		s.reap()
	case <-s.look:
		s.reap()
	case sig := <-s.signals:
		s.step(request(sig))
	case p := <-s.notify.Packets():
		s.packet(p)
	case ev := <-s.events:
		s.answer(ev)
	case <-s.timer.C:
		s.step(engine.Tick{})
	case <-feed:
		s.Watchdog.Tick(s.Uptime())
		s.reap() // a lost SIGCHLD costs seconds, not a zombie
	case <-s.hang:
		s.Log.Warn("test-hang", "after", s.HangAfter)
		select {}
	case kind := <-s.finished:
		return kind
	}
	return ""
}

// request maps a signal to what it asks for.
func request(sig os.Signal) engine.ShutdownRequest {
	r := engine.ShutdownRequest{Kind: engine.Reboot, Reason: "signal " + unix.SignalName(sig.(syscall.Signal))}
	switch sig {
	case syscall.SIGUSR1:
		r.Kind = engine.Halt
	case syscall.SIGUSR2:
		r.Kind = engine.PowerOff
	}
	return r
}

// step tells the engine and does what it says. What may end in a reboot is
// judged by the guests of that moment.
func (s *Supervisor) step(ev engine.Event) {
	switch ev.(type) {
	case engine.Exited, engine.StartFailed:
		s.tell(engine.Guests{Running: s.Groups.Guests()})
	}
	s.tell(ev)
}

func (s *Supervisor) tell(ev engine.Event) {
	for _, a := range s.engine.Step(s.Uptime(), ev) {
		s.do(a)
	}
}

func (s *Supervisor) do(a engine.Action) {
	switch a := a.(type) {
	case engine.Log:
		s.Log.Log(context.Background(), a.Level, a.Event, a.Args...)
	case engine.Start:
		s.inFlight++
		go s.start(s.specs[a.Name])
	case engine.Signal:
		// It may have ended just now; then its exit is on the way.
		_ = unix.Kill(a.PID, a.Sig)
	case engine.KillGroup:
		if err := s.Groups.Kill(a.Name); err != nil {
			s.Log.Warn("kill-failed", "name", a.Name, "err", err)
		}
	case engine.Probe:
		s.inFlight++
		go s.probe(s.specs[a.Name])
	case engine.Up:
		if a.Name == s.LogsAfter {
			s.Pump.Begin(s.LogDir)
		}
	case engine.AllReady:
		s.Watchdog.HostReady()
	case engine.GoingDown:
		s.Watchdog.Shutdown(s.Uptime() + shutdownLimit)
	case engine.Finish:
		go s.guard("finish", func() { s.finish(a.Kind) })
	}
}

// keepUp runs f again after a panic, until it returns.
func (s *Supervisor) keepUp(what string, f func()) {
	for !s.guard(what, f) {
		time.Sleep(panicPause) // what panics each time must not fill the log
	}
}

// guard is at the root of every goroutine: a panic is logged and costs what was
// being done. It says whether there was none.
func (s *Supervisor) guard(what string, f func()) (ok bool) {
	defer func() {
		if r := recover(); r != nil {
			s.Log.Error("panic", "in", what, "value", fmt.Sprint(r), "stack", string(debug.Stack()))
		}
	}()
	f()
	return true
}
