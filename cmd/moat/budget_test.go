package main

import (
	"strings"
	"testing"
	"time"

	"github.com/moat-gateway/moat/explain/text"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard/budget"
)

func TestFiguresThatNobodyKnowsAreNotTold(t *testing.T) {
	spent := []gateway.BudgetSpent{{Name: "site", By: "site", Per: "day", Mode: "enforce", Cap: budget.Amount{Requests: 6}}}
	since := time.Now()
	for _, c := range []struct {
		store   string
		stopped bool
		want    []string
		not     string
	}{
		{"valkey", false, []string{"The valkey does not answer, so nobody spends: gone"}, "0 used|Not stopped"},
		{"valkey", true, []string{"Stopped", "The valkey does not answer, so nobody spends: gone"}, "0 used"},
		{"ledger", false, []string{"Not stopped", "The file cannot be written, so nobody spends beyond what it says already: gone", "0 used of 6"}, "does not answer"},
	} {
		told := strings.Join(budgetLines(&gateway.Budgets{Store: c.store, Stopped: c.stopped, StoppedSince: &since, Error: "gone", Budgets: spent}, 5, text.Options{}), "\n")
		for _, want := range c.want {
			if !strings.Contains(told, want) {
				t.Errorf("%s: no %q in:\n%s", c.store, want, told)
			}
		}
		for not := range strings.SplitSeq(c.not, "|") {
			if strings.Contains(told, not) {
				t.Errorf("%s: %q in:\n%s", c.store, not, told)
			}
		}
	}
}
