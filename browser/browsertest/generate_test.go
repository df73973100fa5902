package browsertest_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/browser/browsertest"
)

func BenchmarkCase(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	cases := make([]browser.Case, 1000)
	for i := range cases {
		cases[i] = browsertest.Case(r)
	}
	now := time.Unix(1_800_000_000, 0)
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		if _, err := cases[i%len(cases)].Run(now); err != nil {
			b.Fatal(err)
		}
	}
}
