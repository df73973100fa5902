package ledger_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/moat-gateway/moat/guard/budget"
	"github.com/moat-gateway/moat/store/ledger"
)

// The switch was pulled while the disk was full.
func TestTheSwitchIsWrittenWhenTheFileIsWellAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spent.db")
	l, _, err := ledger.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err = os.Rename(path, path+"~"); err != nil {
		t.Fatal(err)
	}
	if err = l.Stop(t.Context(), true); err == nil {
		t.Error("the switch is said to be written, and the file is gone")
	}
	if err = os.Rename(path+"~", path); err != nil {
		t.Fatal(err)
	}
	if err = l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, _, err = ledger.Open(path); err != nil {
		t.Fatal(err)
	}
	if since, sErr := l.Stopped(t.Context()); sErr != nil || since.IsZero() {
		t.Errorf("the switch is off after a restart: %v, %v", since, sErr)
	}
	if err = l.Close(); err != nil {
		t.Error(err)
	}
}

// Calls that began before all counters of a budget were reset settle when there is no room left.
func TestLateSettlementsFindNoMoreRoomThanThereIs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "spent.db")
	l, _, err := ledger.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	r := budget.Rule{Name: "v", By: budget.ByVisitor, Per: budget.Month, Cap: budget.Amount{Bytes: 1e9}}
	take := func(who string) budget.Account {
		res := make([]budget.Result, 1)
		if ok, tErr := l.Reserve(t.Context(), []budget.Demand{{Rule: &r, Who: who, Take: budget.Amount{Requests: 1}, Force: true}}, res); !ok || tErr != nil {
			t.Fatal(ok, tErr)
		}
		return res[0].Account
	}
	var slow []budget.Account
	for i := range 3 {
		slow = append(slow, take(fmt.Sprint("slow", i)))
	}
	if _, err = l.Reset(t.Context(), &r, ""); err != nil {
		t.Fatal(err)
	}
	for i := range budget.MaxAccounts + 1 {
		take(fmt.Sprint("a", i))
	}
	for _, at := range slow {
		if err = l.Settle(t.Context(), []budget.Change{{Account: at, Add: budget.Amount{Bytes: 5}}}); err != nil {
			t.Error(err)
		}
	}
	if err = l.Close(); err != nil {
		t.Fatal(err)
	}
	if l, _, err = ledger.Open(path); err != nil {
		t.Fatal("it does not open again:", err)
	}
	if err = l.Close(); err != nil {
		t.Error(err)
	}
}
