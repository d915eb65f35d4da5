package db_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"cairn/toolstack/api"
	"cairn/toolstack/db"
	"cairn/toolstack/db/etcd"
)

// A workload is what a child process does to a database until it is killed.
// Each of several writers counts its transactions; a transaction adds a VM with
// a VBD and a secret, removes those of some transactions ago, moves memory
// between two of the account VMs, whose sum stays the same, and sets the
// writer's counter. So whether all acknowledged transactions are there, whole
// and nothing else, can be seen from the records alone.
type workload struct {
	Dir  string
	Seed uint64
	// What earlier lives acknowledged: a counter per writer, and the highest
	// generation a client may have seen.
	Acked      [workers]int
	Generation uint64
	// Max transactions per writer; 0 means until the end of the process.
	Max int
	// Padding makes the secret of each transaction longer.
	Padding int
	// Tidy makes the engine compact and rewrite its file often.
	Tidy bool
}

const (
	workloadEnv = "CAIRN_TEST_WORKLOAD"
	workers     = 4
	kept        = 5 // transactions of each writer whose objects are there
	accounts    = 8
	startMemory = 1000
)

func TestMain(m *testing.M) {
	text := os.Getenv(workloadEnv)
	if text == "" {
		os.Exit(m.Run())
	}
	var w workload
	err := json.Unmarshal([]byte(text), &w)
	if err == nil {
		err = w.run(context.Background(), os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// openDB opens the database of a directory.
func openDB(ctx context.Context, dir string) (*db.DB, error) {
	return openConfig(ctx, etcd.Config{Dir: dir})
}

func openConfig(ctx context.Context, c etcd.Config) (*db.DB, error) {
	e, err := etcd.Open(ctx, c)
	if err != nil {
		return nil, err
	}
	d, err := db.Open(ctx, e, db.Options{})
	if err != nil {
		e.Close()
	}
	return d, err
}

// run checks what earlier lives left, and goes on where they ended. It prints
// "writer counter generation" for each acknowledged transaction.
func (w *workload) run(ctx context.Context, acks io.Writer) error {
	c := etcd.Config{Dir: w.Dir}
	if w.Tidy {
		c.Garbage, c.Free = 1<<18, 1<<16
	}
	d, err := openConfig(ctx, c)
	if err != nil {
		return err
	}
	defer d.Close()
	counters, err := w.check(d.Snapshot())
	if err != nil {
		return err
	}
	if err := w.prepare(ctx, d, counters); err != nil {
		return err
	}
	var wg sync.WaitGroup
	errs := make([]error, workers)
	for i := range workers {
		wg.Go(func() { errs[i] = w.write(ctx, d, i, counters[i], acks) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return d.Close()
}

// prepare makes the records that stay.
func (w *workload) prepare(ctx context.Context, d *db.DB, counters [workers]int) error {
	if d.Snapshot().Count(api.ClassOf[api.VM]()) > 0 {
		return nil
	}
	return d.Update(ctx, func(tx *db.Tx) error {
		for i := range accounts {
			vm := api.NewVM()
			vm.NameLabel, vm.MemoryTarget = "account", startMemory
			db.InsertAs(tx, api.VMRef(fmt.Sprintf("OpaqueRef:account-%d", i)), vm)
		}
		for i := range workers {
			s := api.NewSecret()
			s.Value = "0"
			db.InsertAs(tx, counterRef(i), s)
		}
		return nil
	})
}

func counterRef(writer int) api.SecretRef {
	return api.SecretRef(fmt.Sprintf("OpaqueRef:counter-%d", writer))
}

// The references of what transaction n of a writer adds.
func vmRef(writer, n int) api.VMRef { return api.VMRef(fmt.Sprintf("OpaqueRef:vm-%d-%d", writer, n)) }
func vbdRef(writer, n int) api.VBDRef {
	return api.VBDRef(fmt.Sprintf("OpaqueRef:vbd-%d-%d", writer, n))
}
func secretRef(writer, n int) api.SecretRef {
	return api.SecretRef(fmt.Sprintf("OpaqueRef:secret-%d-%d", writer, n))
}

func (w *workload) write(ctx context.Context, d *db.DB, writer, done int, acks io.Writer) error {
	random := rand.New(rand.NewPCG(w.Seed, uint64(writer)))
	padding := strings.Repeat("x", w.Padding)
	for n := done + 1; w.Max == 0 || n <= w.Max; n++ {
		from, to, amount := random.IntN(accounts), random.IntN(accounts), random.Int64N(100)
		err := d.Update(ctx, func(tx *db.Tx) error {
			if err := move(tx, from, to, amount); err != nil {
				return err
			}
			return step(tx, writer, n, padding)
		})
		if err != nil {
			return err
		}
		fmt.Fprintf(acks, "%d %d %d\n", writer, n, d.Snapshot().Generation())
	}
	return nil
}

func move(tx *db.Tx, from, to int, amount int64) error {
	for i, sign := range map[int]int64{from: -1, to: 1} {
		if from == to {
			break
		}
		vm, err := db.Edit(tx, api.VMRef(fmt.Sprintf("OpaqueRef:account-%d", i)))
		if err != nil {
			return err
		}
		vm.MemoryTarget += sign * amount
	}
	return nil
}

func step(tx *db.Tx, writer, n int, padding string) error {
	db.InsertAs(tx, vmRef(writer, n), api.NewVM())
	vbd := api.NewVBD()
	vbd.VM = vmRef(writer, n)
	db.InsertAs(tx, vbdRef(writer, n), vbd)
	s := api.NewSecret()
	s.Value = fmt.Sprint(n, padding)
	db.InsertAs(tx, secretRef(writer, n), s)
	if old := n - kept; old > 0 {
		for _, err := range []error{
			db.Delete(tx, vmRef(writer, old)), db.Delete(tx, vbdRef(writer, old)), db.Delete(tx, secretRef(writer, old)),
		} {
			if err != nil {
				return err
			}
		}
	}
	counter, err := db.Edit(tx, counterRef(writer))
	if err == nil {
		counter.Value = fmt.Sprint(n)
	}
	return err
}

// check looks for a broken promise and returns the counters.
func (w *workload) check(s *db.Snapshot) (counters [workers]int, err error) {
	if s.Generation() <= w.Generation {
		return counters, fmt.Errorf("generation %d after %d", s.Generation(), w.Generation)
	}
	if s.Count(api.ClassOf[api.Secret]()) == 0 && s.Count(api.ClassOf[api.VM]()) == 0 {
		if w.Acked != [workers]int{} {
			return counters, fmt.Errorf("all is lost: %v was acknowledged", w.Acked)
		}
		return counters, nil
	}
	transactions := 0
	for i := range workers {
		if counters[i], err = w.checkWriter(s, i); err != nil {
			return counters, err
		}
		transactions += min(counters[i], kept)
	}
	if n := s.Count(api.ClassOf[api.VM]()); n != transactions+accounts {
		return counters, fmt.Errorf("%d VMs, want %d", n, transactions+accounts)
	}
	if n := s.Count(api.ClassOf[api.VBD]()); n != transactions {
		return counters, fmt.Errorf("%d VBDs, want %d", n, transactions)
	}
	if n := s.Count(api.ClassOf[api.Secret]()); n != transactions+workers {
		return counters, fmt.Errorf("%d secrets, want %d", n, transactions+workers)
	}
	return counters, checkSum(s)
}

func (w *workload) checkWriter(s *db.Snapshot, writer int) (int, error) {
	counter, err := db.Get(s, counterRef(writer))
	if err != nil {
		return 0, err
	}
	var n int
	if _, err := fmt.Sscan(counter.Value, &n); err != nil {
		return 0, err
	}
	if n < w.Acked[writer] {
		return 0, fmt.Errorf("writer %d: transaction %d was acknowledged, the newest is %d", writer, w.Acked[writer], n)
	}
	for i := max(n-kept, 0) + 1; i <= n; i++ {
		vm, err := db.Get(s, vmRef(writer, i))
		if err != nil {
			return 0, fmt.Errorf("half of transaction %d-%d: %w", writer, i, err)
		}
		vbd, err := db.Get(s, vbdRef(writer, i))
		if err != nil || vbd.VM != vmRef(writer, i) {
			return 0, fmt.Errorf("half of transaction %d-%d: %v, %w", writer, i, vbd, err)
		}
		if !slices.Equal(vm.VBDs, []api.VBDRef{vbdRef(writer, i)}) {
			return 0, fmt.Errorf("transaction %d-%d: VBDs are %v", writer, i, vm.VBDs)
		}
		secret, err := db.Get(s, secretRef(writer, i))
		if err != nil || !strings.HasPrefix(secret.Value, fmt.Sprint(i)) {
			return 0, fmt.Errorf("half of transaction %d-%d: %v, %w", writer, i, secret, err)
		}
	}
	return n, nil
}

func checkSum(s *db.Snapshot) error {
	var sum int64
	for _, vm := range db.All[api.VM](s) {
		if vm.NameLabel == "account" {
			sum += vm.MemoryTarget
		}
	}
	if sum != accounts*startMemory {
		return fmt.Errorf("the accounts hold %d, want %d", sum, accounts*startMemory)
	}
	return nil
}

// acknowledge reads one line of the child.
func (w *workload) acknowledge(line string) error {
	var writer, n int
	var generation uint64
	if _, err := fmt.Sscan(line, &writer, &n, &generation); err != nil {
		return fmt.Errorf("line %q: %w", line, err)
	}
	w.Acked[writer] = max(w.Acked[writer], n)
	w.Generation = max(w.Generation, generation)
	return nil
}
