package bench

import (
	"maps"
	"net/http"
	"slices"
	"strconv"
	"testing"
)

// BenchmarkCORS measures every row: go test -run '^$' -bench CORS -benchmem.
// Sub-benchmarks are named row/origins/contestant; cmd/corstable makes a table of them.
func BenchmarkCORS(b *testing.B) {
	for _, row := range Rows() {
		for _, n := range Counts {
			for _, g := range row.Groups {
				for _, c := range append([]Contestant{g.Ours}, g.Theirs...) {
					b.Run(row.Name+"/"+strconv.Itoa(n)+"/"+c.Name, func(b *testing.B) { row.Benchmark(b, c, n) })
				}
			}
		}
	}
}

// Every contestant answers every row as the row says, before anybody is measured.
func TestRowsAreAnsweredAsTheySay(t *testing.T) {
	for _, row := range Rows() {
		for _, n := range Counts {
			for _, g := range row.Groups {
				for _, c := range append([]Contestant{g.Ours}, g.Theirs...) {
					if _, err := row.Exchange(c, n); err != nil {
						t.Error(err)
					}
				}
			}
		}
	}
}

func exchange(t *testing.T, row string, c Contestant, n int) *Exchange {
	t.Helper()
	for _, r := range Rows() {
		if r.Name != row {
			continue
		}
		x, err := r.Exchange(c, n)
		if err != nil {
			t.Fatal(err)
		}
		return x
	}
	t.Fatalf("no row %q", row)
	return nil
}

// What the guards promise to allocate for a request, whatever the number of origins.
func TestAllocations(t *testing.T) {
	most := func(row string, c Contestant, want float64) {
		t.Helper()
		for _, n := range Counts {
			x := exchange(t, row, c, n)
			if got := testing.AllocsPerRun(200, x.Do); got > want {
				t.Errorf("%s, %s with %d origins: %v allocations, want at most %v", c.Name, row, n, got, want)
			}
		}
	}
	most("actual ok", Moat, 1)
	most("actual denied", Moat, 0)
	most("preflight ok", Moat, 1)
	most("preflight denied", Moat, 0)
	most("preflight denied, header", Moat, 1)
	most("actual ok", CrossSite, 0)
	most("actual denied", CrossSite, 0)
	for _, row := range Rows() {
		if !row.Adversarial {
			continue
		}
		for _, g := range row.Groups {
			most(row.Name, g.Ours, 1)
		}
	}
}

// Handlers and middleware around the guard may edit the headers that they find, so what
// one of them does to its answer must not be in the next one.
func TestAnswersShareNoSlices(t *testing.T) {
	for _, row := range []string{"actual ok", "preflight ok"} {
		for _, vary := range [][]string{nil, {"Accept-Encoding"}} {
			x := exchange(t, row, Moat, 1)
			request := x.Request
			answer := func() http.Header {
				// Each request has its own header; what an answer has of it is no other's.
				x.Request = request.Clone(t.Context())
				inner := x.handler
				defer func() { x.handler = inner }()
				x.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if vary != nil {
						w.Header()["Vary"] = slices.Clone(vary)
					}
					inner.ServeHTTP(w, r)
				})
				x.Do()
				return maps.Clone(x.Header)
			}
			first := answer()
			want := first.Clone()
			// Appending to one header must not reach another of the same answer.
			for _, values := range first {
				_ = append(values, "appended")
			}
			if !maps.EqualFunc(first, want, slices.Equal) {
				t.Errorf("%s: appending to a header changes another: %v, want %v", row, first, want)
			}
			for _, values := range first {
				clear(values[:cap(values)])
			}
			for name, values := range answer() {
				if !slices.Equal(values, want[name]) {
					t.Errorf("%s: clearing %s of one answer makes it %q in the next, want %q", row, name, values, want[name])
				}
			}
		}
	}
}
