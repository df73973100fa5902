package memory

// A slot is one word: 20 bits of the key's hash (its tag), 2 bits for how much the key is
// missed if it has to go (its grip), and the TAT in microseconds of the Store's clock, modulo
// 2^42, which is 50.9 days. A word of 0 is empty; a tag is never 0. A TAT that is not after
// now is no debt, so a slot frees itself.
const (
	tatBits = 42
	tatMask = 1<<tatBits - 1
	// past is how long ago, of those 50.9 days, a TAT may be: 12.7 days. The sweeper clears
	// it sooner. So it may lie 38.2 days ahead, a week more than any limit's horizon: a
	// goroutine that was stopped for a week after it had read the clock still reads right.
	past = 1 << (tatBits - 2)
	// reserved is how long ago the TAT is of a slot that has not been charged yet: an hour
	// and more, up to 19 hours more. So it has passed for everybody, also for who has read the
	// clock before whoever reserves it, and no two are the same.
	reserved     = 3600e6
	reservedBits = 36

	// A key that has made one request has no grip. One that came back while in debt has 1,
	// and each refusal adds 1, up to 3.
	grip     = 1 << tatBits
	gripMask = 3 * grip
	tagShift = tatBits + 2
)

func pack(tag, hold uint64, tat int64) uint64 {
	return tag<<tagShift | hold | uint64(tat)&tatMask //nolint:gosec // modulo 2^42 is the point.
}

// debt is how far ahead of now the word's TAT is, and if it is not, 0 or less.
func debt(word uint64, now int64) int64 {
	return int64((word-uint64(now)+past)&tatMask) - past //nolint:gosec // 42 bits.
}

// bucket is a cache line.
type bucket [slots]cell

// entry is a slot as it was read. A bucket without one for the key has slot -1.
type entry struct {
	slot int
	word uint64
	debt int64
}

// find returns the entry of the key with the most debt.
func (b *bucket) find(tag uint64, now int64) entry {
	e := entry{slot: -1}
	for i := range b {
		word := b[i].Load()
		if word>>tagShift != tag {
			continue
		}
		if d := debt(word, now); e.slot < 0 || d > e.debt {
			e = entry{i, word, d}
		}
	}
	return e
}

// swap replaces an entry that nobody has changed since it was read.
func (b *bucket) swap(e entry, word uint64) bool {
	return b[e.slot].CompareAndSwap(e.word, word)
}

// reserve puts the key into a slot, without any debt, and says what was there. It fails if
// the key has a slot by now, or somebody else was faster.
//
// If all slots hold debts, one has to go: any of those with the least grip. It is not the
// least debt, which would be that of whoever has the shortest limit, and soonest forgotten in
// a flood of keys to a long one. A key that is refused and asks again is what limits are for;
// most keys of a flood never come back. If they do, all have a grip; then it loosens for all,
// and those keep theirs who go on asking.
func (b *bucket) reserve(tag uint64, now int64) (e, gone entry, ok bool) {
	const empty, forgotten = -2, -1
	least := int64(gripMask + 1)
	rolled := roll()
	for n := range uint64(slots) {
		i := int((rolled%slots + n) % slots)
		word := b[i].Load()
		if word>>tagShift == tag {
			return e, gone, false
		}
		d := debt(word, now)
		rank := int64(word & gripMask)
		switch {
		case word == 0:
			rank = empty
		case d <= 0:
			rank = forgotten
		}
		if rank < least {
			least, gone = rank, entry{i, word, d}
		}
	}
	ago := reserved + int64(rolled>>(64-reservedBits))
	e = entry{gone.slot, pack(tag, 0, now-ago), -ago}
	if !b.swap(gone, e.word) {
		return e, gone, false
	}
	if least > 0 {
		b.loosen(e.slot)
	}
	return e, gone, true
}

// loosen lessens the grip of all keys but the newest.
func (b *bucket) loosen(newest int) {
	for i := range b {
		if word := b[i].Load(); i != newest && word&gripMask != 0 {
			b[i].CompareAndSwap(word, word-grip)
		}
	}
}

// claim makes sure that e, which has no debt, is the only entry of its key, and so the one
// to be charged.
//
// Two requests may each reserve a slot for the same new key. If both were charged, the key
// would have two bursts. So neither is charged before its owner has looked at all slots
// again: one of the two looks after both are there. Of two without debt the lower slot
// stays, and the other is cleared, by whoever sees it first; its owner then fails to charge
// it, and starts over. An entry with debt stays in any case. A slot that was cleared does not
// come to hold the same word again, or its former owner could take it for the one it claimed.
func (b *bucket) claim(e entry, now int64) bool {
	for i := range b {
		word := b[i].Load()
		if i == e.slot || word>>tagShift != e.word>>tagShift {
			continue
		}
		if i < e.slot || debt(word, now) > 0 {
			b.swap(e, 0)
			return false
		}
		if !b[i].CompareAndSwap(word, 0) {
			return false
		}
	}
	return true
}

// sweep clears what was forgotten before now. Its TATs are read as they were meant at the
// time seen, because they may be too old by now to tell past from future.
func (b *bucket) sweep(seen, now int64) {
	for i := range b {
		if word := b[i].Load(); word != 0 && seen+debt(word, seen) <= now {
			b[i].CompareAndSwap(word, 0)
		}
	}
}
