//go:build lab

package db_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
)

// A disk is the record of what was done to the files of a directory, from which
// the directory can be made again as a power cut could leave it. What it
// promises is less than any journalling file system does:
//   - the bytes and size of a file are kept from the end of a sync of that file,
//     if the call that wrote them had ended when the sync began;
//   - names (create, rename, remove) are kept from the end of a sync of their
//     directory on; names not synced are kept as far as some moment and no
//     further, as a journal does;
//   - of everything else each call, and of a write each sector, may be there or
//     not.
type disk struct {
	root  *node
	log   []*operation
	clock int // counts begins and ends
}

// node is a file or a directory.
type node struct {
	name     string // at first, for errors
	children map[string]*node
}

type opKind int

const (
	opWrite    opKind = iota
	opTruncate        // to offset
	opExtend          // to offset at least
	opSync
	opName
)

type nameChange int

const (
	create nameChange = iota
	rename
	remove
)

// operation is one call. Times are of the disk's clock; 0 is never.
type operation struct {
	kind       opKind
	node       *node
	offset     int64
	data       []byte
	change     nameChange
	path, to   string
	began, end int
	directory  *node // of a name: whose sync keeps it
}

const sector = 512

func newDisk() *disk { return &disk{root: &node{children: map[string]*node{}}} }

func (d *disk) begin(op *operation) {
	d.clock++
	op.began = d.clock
	d.log = append(d.log, op)
}

// end notes that the call has ended, and does to the names what it did.
func (d *disk) end(op *operation) error {
	d.clock++
	op.end = d.clock
	if op.kind != opName {
		return nil
	}
	last := op.path
	if op.change == rename {
		last = op.to
	}
	op.directory = find(d.root, filepath.Dir(last))
	return apply(d.root, op)
}

func (d *disk) withdraw(op *operation) {
	for i := len(d.log) - 1; i >= 0; i-- {
		if d.log[i] == op {
			d.log = append(d.log[:i], d.log[i+1:]...)
			return
		}
	}
}

func (d *disk) find(path string) *node { return find(d.root, path) }

func find(n *node, path string) *node {
	if path == "." {
		return n
	}
	dir := find(n, filepath.Dir(path))
	if dir == nil {
		return nil
	}
	return dir.children[filepath.Base(path)]
}

// apply does a change of names to a tree.
func apply(root *node, op *operation) error {
	from := find(root, filepath.Dir(op.path))
	if from == nil || from.children == nil {
		return fmt.Errorf("%s has no directory", op.path)
	}
	name := filepath.Base(op.path)
	switch op.change {
	case create:
		from.children[name] = op.node
	case remove:
		delete(from.children, name)
	case rename:
		to := find(root, filepath.Dir(op.to))
		if to == nil || from.children[name] == nil {
			return fmt.Errorf("%s cannot become %s", op.path, op.to)
		}
		to.children[filepath.Base(op.to)] = from.children[name]
		delete(from.children, name)
	}
	return nil
}

// damage is what a power cut does to calls that were not synced.
type damage int

const (
	loseAll   damage = iota // none of them is there
	keepAll                 // all are, also those that had not ended
	loseSome                // each is there or not
	tearLast                // all but some sectors of the last write
	tearEvery               // of each write each sector is there or not
	damages
)

func (d damage) String() string {
	return [...]string{"lose-all", "keep-all", "lose-some", "tear-last", "tear-every"}[d]
}

// cut is a moment of power loss with what it does.
type cut struct {
	at     int // clock
	damage damage
	seed   uint64
}

func (c cut) String() string { return fmt.Sprintf("at %d, %s, seed %d", c.at, c.damage, c.seed) }

// survivors are the calls a cut leaves, torn writes in the parts that are left.
type survivors struct {
	names   []*operation
	content map[*node][]*operation
}

// cut decides which calls are on the disk after a power cut.
func (d *disk) cut(c cut) survivors {
	random := rand.New(rand.NewPCG(c.seed, uint64(c.at)))
	var names, content []*operation
	synced := map[*node]int{} // begin of the last sync that ended
	for _, op := range d.log {
		switch {
		case op.began > c.at:
		case op.kind == opName:
			names = append(names, op)
		case op.kind != opSync:
			content = append(content, op)
		case op.end != 0 && op.end <= c.at:
			synced[op.node] = max(synced[op.node], op.began)
		}
	}
	s := survivors{names: names[:keptNames(names, synced, c.damage, random)], content: map[*node][]*operation{}}
	last := -1
	for i, op := range content {
		if op.kind == opWrite && !op.syncedBy(synced[op.node]) {
			last = i
		}
	}
	for i, op := range content {
		if op.syncedBy(synced[op.node]) {
			s.content[op.node] = append(s.content[op.node], op)
			continue
		}
		s.content[op.node] = append(s.content[op.node], c.remains(op, i == last, random)...)
	}
	return s
}

// syncedBy tells whether a sync that began then has kept the call.
func (op *operation) syncedBy(begin int) bool { return op.end != 0 && op.end < begin }

// keptNames is how many of the changes of names are kept: those up to the last
// one that was synced, and perhaps some more.
func keptNames(names []*operation, synced map[*node]int, d damage, random *rand.Rand) int {
	kept := 0
	for i, op := range names {
		if op.directory != nil && op.syncedBy(synced[op.directory]) {
			kept = i + 1
		}
	}
	switch d {
	case loseAll:
		return kept
	case keepAll, tearLast:
		return len(names)
	}
	return kept + random.IntN(len(names)-kept+1)
}

// remains is what is left of a call that was not synced.
func (c cut) remains(op *operation, last bool, random *rand.Rand) []*operation {
	whole := false
	switch c.damage {
	case keepAll:
		whole = true
	case loseSome:
		whole = random.IntN(2) == 0
	case tearLast:
		if whole = !last; last {
			return op.tear(random)
		}
	case tearEvery:
		if op.kind == opWrite {
			return op.tear(random)
		}
		whole = random.IntN(2) == 0
	}
	if whole {
		return []*operation{op}
	}
	return nil
}

// tear leaves some sectors of a write.
func (op *operation) tear(random *rand.Rand) (left []*operation) {
	for from := int64(0); from < int64(len(op.data)); {
		to := min((op.offset+from)/sector*sector+sector-op.offset, int64(len(op.data)))
		if random.IntN(2) == 0 {
			left = append(left, &operation{kind: opWrite, offset: op.offset + from, data: op.data[from:to]})
		}
		from = to
	}
	return left
}

// restore makes the directory that is left.
func (d *disk) restore(dir string, c cut) error {
	s := d.cut(c)
	root := &node{children: map[string]*node{}}
	fresh := map[*node]*node{} // directories start empty again
	for _, op := range s.names {
		copied := *op
		if op.node != nil && op.node.children != nil {
			fresh[op.node] = &node{children: map[string]*node{}}
			copied.node = fresh[op.node]
		}
		if err := apply(root, &copied); err != nil {
			return err
		}
	}
	return s.write(root, dir)
}

func (s survivors) write(n *node, path string) error {
	if n.children == nil {
		return s.writeFile(n, path)
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	for name, child := range n.children {
		if err := s.write(child, filepath.Join(path, name)); err != nil {
			return err
		}
	}
	return nil
}

func (s survivors) writeFile(n *node, path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var size int64
	for _, op := range s.content[n] {
		switch op.kind {
		case opWrite:
			_, err = f.WriteAt(op.data, op.offset)
			size = max(size, op.offset+int64(len(op.data)))
		case opTruncate:
			size = op.offset
			err = f.Truncate(size)
		case opExtend:
			if op.offset > size {
				size = op.offset
				err = f.Truncate(size)
			}
		}
		if err != nil {
			return err
		}
	}
	return f.Close()
}
