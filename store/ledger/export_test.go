package ledger

// Books is how many budgets and periods there are.
func (l *Ledger) Books() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.books)
}
