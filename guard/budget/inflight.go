package budget

import "sync"

// InFlight counts the calls that are under way, by budget and spender. The zero value is ready. It
// holds one entry for each that has a call under way, so connections bound it.
type InFlight struct {
	mu     sync.Mutex
	counts map[spender]int
}

type spender struct{ budget, who string }

// enter counts one more, unless there are as many as may be and nobody insists.
func (f *InFlight) enter(s spender, atMost int, force bool) (room, entered bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.counts[s]
	room = n < atMost
	if !room && !force {
		return false, false
	}
	if f.counts == nil {
		f.counts = make(map[spender]int)
	}
	f.counts[s] = n + 1
	return room, true
}

// leave counts one less.
func (f *InFlight) leave(s spender) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := f.counts[s]; n > 1 {
		f.counts[s] = n - 1
	} else {
		delete(f.counts, s)
	}
}
