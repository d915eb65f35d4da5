package db

import (
	"cmp"
	"hash/maphash"
	"slices"
)

// shardBits sets the number of shards of an index: a change copies one shard
// of the objects of a class and the list of shards, nothing else.
const shardBits = 7

var shardSeed = maphash.MakeSeed()

func shardOf(key string) int { return int(maphash.String(shardSeed, key) >> (64 - shardBits)) }

// entry is one key of an index.
type entry[V any] struct {
	key   string
	value V
}

// index is an immutable map. The zero value is empty.
type index[V any] struct {
	shards *[1 << shardBits][]entry[V] // each sorted by key
	count  int
}

func compareEntry[V any](e entry[V], key string) int { return cmp.Compare(e.key, key) }

func (x index[V]) get(key string) (V, bool) {
	if x.shards == nil {
		var zero V
		return zero, false
	}
	shard := x.shards[shardOf(key)]
	i, ok := slices.BinarySearchFunc(shard, key, compareEntry[V])
	if !ok {
		var zero V
		return zero, false
	}
	return shard[i].value, true
}

// all calls f for each entry until it returns false.
func (x index[V]) all(f func(key string, v V) bool) {
	if x.shards == nil {
		return
	}
	for _, shard := range x.shards {
		for i := range shard {
			if !f(shard[i].key, shard[i].value) {
				return
			}
		}
	}
}

// builder changes an index by copying what it touches once.
type builder[V any] struct {
	index[V]
	owned [1 << shardBits]bool
}

func build[V any](x index[V]) *builder[V] {
	b := &builder[V]{index: x}
	b.shards = new([1 << shardBits][]entry[V])
	if x.shards != nil {
		*b.shards = *x.shards
	}
	return b
}

// shard returns the shard of a key as a slice that may be changed.
func (b *builder[V]) shard(key string) *[]entry[V] {
	n := shardOf(key)
	if !b.owned[n] {
		b.owned[n] = true
		old := b.shards[n]
		b.shards[n] = append(make([]entry[V], 0, len(old)+1), old...)
	}
	return &b.shards[n]
}

func (b *builder[V]) put(key string, v V) {
	shard := b.shard(key)
	i, ok := slices.BinarySearchFunc(*shard, key, compareEntry[V])
	if ok {
		(*shard)[i].value = v
		return
	}
	*shard = slices.Insert(*shard, i, entry[V]{key, v})
	b.count++
}

func (b *builder[V]) remove(key string) {
	shard := b.shard(key)
	if i, ok := slices.BinarySearchFunc(*shard, key, compareEntry[V]); ok {
		*shard = slices.Delete(*shard, i, i+1)
		b.count--
	}
}
