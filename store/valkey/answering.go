package valkey

// Answering reports whether the servers can be asked: State is Up.
func (s *Store) Answering() bool { return s.Stats().State == Up }
