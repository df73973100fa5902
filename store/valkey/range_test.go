package valkey

import "testing"

// A range whose key the server may have dropped is given out no more.
func TestARangeIsOpenForAMinute(t *testing.T) {
	k, other := &lineage{}, &lineage{}
	end := openFor.Microseconds()
	n := &numbers{lineage: k, ends: end}
	if !n.left(k, 0) || !n.left(k, end-1) {
		t.Error("it has ended too early")
	}
	if n.left(k, end) || n.left(other, 0) || (*numbers)(nil).left(k, 0) {
		t.Error("it has not ended")
	}
	n.given.Store(inRange - 1)
	if !n.left(k, 0) {
		t.Error("the last number is not given out")
	}
	n.given.Add(1)
	if n.left(k, 0) {
		t.Error("there are too many numbers in it")
	}
}
