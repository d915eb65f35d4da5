package db_test

import (
	"bufio"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// unitKills is what a unit test has time for; the lab has more.
const unitKills = 6

func TestKilledProcessLosesNothingAcknowledged(t *testing.T) { killOften(t, 1, unitKills) }

// killOften runs the workload, kills it at seeded moments and lets its next life
// check what the last one left. A seed repeats the plan, not the scheduling.
func killOften(t *testing.T, seed uint64, kills int) {
	t.Helper()
	w := &workload{Dir: t.TempDir(), Seed: seed}
	random := rand.New(rand.NewPCG(seed, seed))
	var acks, early int
	for kill := range kills {
		n := w.lifeAndDeath(t, random)
		if t.Failed() {
			t.Fatalf("seed %d, before kill %d", seed, kill)
		}
		acks += n
		if n == 0 {
			early++
		}
		w.Seed++
	}
	d, err := openDB(t.Context(), w.Dir)
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := w.check(d.Snapshot()); err != nil {
		t.Error(err)
	}
	t.Logf("%d kills, %d of them before the first acknowledgement of a life; %d transactions acknowledged", kills, early, acks)
}

// lifeAndDeath starts a child and kills it: mostly a moment after some
// acknowledgements, sometimes while it is starting.
func (w *workload) lifeAndDeath(t *testing.T, random *rand.Rand) (acks int) {
	t.Helper()
	cmd := w.child(t)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var trouble strings.Builder
	cmd.Stderr = &trouble
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := func() { cmd.Process.Kill() }
	after := 1 + random.IntN(60)
	if random.IntN(10) == 0 {
		time.AfterFunc(time.Duration(random.IntN(80))*time.Millisecond, kill)
	}
	moment := time.Duration(random.IntN(3000)) * time.Microsecond
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			break // what the kill cut off was not acknowledged
		}
		if err := w.acknowledge(line); err != nil {
			t.Error(err)
		}
		if acks++; acks == after {
			time.AfterFunc(moment, kill)
		}
	}
	cmd.Wait()
	if text := trouble.String(); text != "" {
		t.Error(text)
	}
	return acks
}

// child is this program as the workload.
func (w *workload) child(t *testing.T) *exec.Cmd {
	t.Helper()
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), workloadEnv+"="+string(text))
	return cmd
}
