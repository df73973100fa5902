package memory_test

import (
	"testing"

	"github.com/moat-gateway/moat/guard/ratelimit"
	"github.com/moat-gateway/moat/store/memory"
	"github.com/moat-gateway/moat/store/storetest"
)

func TestConformance(t *testing.T) {
	storetest.Run(t, func(*testing.T) ratelimit.Store { return memory.New(1 << 20) })
}
