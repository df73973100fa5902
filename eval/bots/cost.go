package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

// cost is what answers take of an attacker's machine.
type cost struct {
	// first is the CPU time of a first answer, from nothing: the program, the page, a ticket, the call.
	first time.Duration
	// cpu is what answersMeasured more take, memory the most that the processes had at a time (PSS).
	cpu    time.Duration
	memory int64
}

// answersMeasured is how many answers costs are measured over.
const answersMeasured = 1000

// clockTick is what /proc counts CPU time in: 100 a second on every Linux that Go runs on.
const clockTick = 10 * time.Millisecond

// meter watches a process and all that come from it.
type meter struct {
	mu     sync.Mutex
	used   map[int]time.Duration // by process, the last that was seen
	memory int64
	stop   chan struct{}
	over   chan struct{}
}

func watch(pid int) *meter {
	m := &meter{used: map[int]time.Duration{}, stop: make(chan struct{}), over: make(chan struct{})}
	go func() {
		defer close(m.over)
		for {
			m.look(pid)
			select {
			case <-m.stop:
				m.look(pid)
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
	return m
}

// end returns the CPU time of all processes that were seen, and the most memory that they had.
func (m *meter) end() (cpu time.Duration, memory int64) {
	close(m.stop)
	<-m.over
	return m.total()
}

func (m *meter) total() (cpu time.Duration, memory int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, d := range m.used {
		cpu += d
	}
	return cpu, m.memory
}

func (m *meter) look(root int) {
	parents, used := map[int]int{}, map[int]time.Duration{}
	files, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		return
	}
	for _, file := range files {
		text, err := os.ReadFile(file) //nolint:gosec // below /proc
		if err != nil {
			continue // gone
		}
		// The name, in parentheses, may contain anything; the state follows.
		f := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+1:]))
		if len(f) < 15 {
			continue
		}
		pid, _ := strconv.Atoi(strings.Split(file, "/")[2]) // digits, by the pattern
		number := func(i int) int {
			n, _ := strconv.Atoi(f[i]) // as proc(5) says
			return n
		}
		parents[pid] = number(1)
		used[pid] = time.Duration(number(11)+number(12)) * clockTick
	}
	var memory int64
	m.mu.Lock()
	defer m.mu.Unlock()
	for pid := range parents {
		for p := pid; p > 1; p = parents[p] {
			if p == root {
				m.used[pid] = max(m.used[pid], used[pid])
				memory += pss(pid)
				break
			}
		}
	}
	m.memory = max(m.memory, memory)
}

// pss is the memory of a process, what it shares with others divided among them.
func pss(pid int) int64 {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if f := strings.Fields(line); len(f) > 1 && f[0] == "Pss:" {
			n, _ := strconv.ParseInt(f[1], 10, 64) // as proc(5) says
			return n << 10
		}
	}
	return 0
}

// measure visits once for a first answer, and once for many more.
func (s *site) measure(ctx context.Context, r *runner) (c cost, err error) {
	visit := func(calls int) (time.Duration, int64, error) {
		s.visitor.Add(1)
		visiting, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		var m *meter
		var before time.Duration
		r.began = func(pid int) { m = watch(pid) }
		if r.pid != 0 {
			m = watch(r.pid)
			time.Sleep(100 * time.Millisecond)
			before, _ = m.total()
		}
		arrived := s.calls.Load()
		vErr := r.visit(visiting, calls)
		if m == nil {
			return 0, 0, vErr
		}
		cpu, memory := m.end()
		if got := s.calls.Load() - arrived; vErr == nil && got < int64(calls) {
			vErr = fmt.Errorf("%d of %d calls arrived", got, calls)
		}
		return max(r.took, cpu-before), memory, vErr
	}
	if c.first, _, err = visit(1); err != nil {
		return c, err
	}
	all, memory, err := visit(1 + answersMeasured)
	c.cpu, c.memory = max(0, all-c.first), memory
	return c, err
}
