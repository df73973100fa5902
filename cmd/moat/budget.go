package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/explain/text"
	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard/budget"
)

func budgetCommand() *cobra.Command {
	var (
		admin  string
		asJSON bool
		n      int
	)
	cmd := &cobra.Command{
		Use:   "budget",
		Short: "Show what budgets have spent, stop all spending, or reset a budget",
		Long: "Asks a running gate's admin listener. Where gates share a store, any of them knows what all\n" +
			"have spent, and stop and resume hold for all.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if n < 0 {
				return usageError{fmt.Errorf("--number: %d: less than nobody", n), "leave it out for 5; 0 lists no spenders"}
			}
			body, err := ask(cmd, admin, "/budgets")
			if err != nil {
				return err
			}
			if asJSON {
				_, err = cmd.OutOrStdout().Write(body)
				return err
			}
			return tellBudgets(cmd.OutOrStdout(), body, n)
		},
	}
	cmd.PersistentFlags().StringVar(&admin, "admin", "127.0.0.1:9090", "the gate's admin `address`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVarP(&n, "number", "n", 5, "how many spenders to list of each budget, at most 20")
	cmd.AddCommand(
		switchCommand(&admin, "stop", "Refuse every call of a route that has a budget, until resume",
			"The kill switch: from the next call on, routes that have a budget answer 503, in report mode too. Calls under\nway end by themselves. It holds for all gates that share the store, and across restarts."),
		switchCommand(&admin, "resume", "Let calls pass again", "Turns the kill switch back."),
		resetBudgetCommand(&admin),
	)
	return cmd
}

func switchCommand(admin *string, word, short, long string) *cobra.Command {
	return &cobra.Command{
		Use: word, Short: short, Long: long, Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := changeBudgets(cmd, http.MethodPost, *admin, "/budgets/"+word)
			if err != nil {
				return err
			}
			var now gateway.Budgets
			if err = json.Unmarshal(body, &now); err != nil {
				return fmt.Errorf("the admin listener's answer: %w", err)
			}
			_, err = io.WriteString(cmd.OutOrStdout(), switchLine(&now)+"\n")
			return err
		},
	}
}

func resetBudgetCommand(admin *string) *cobra.Command {
	return &cobra.Command{
		Use:   "reset BUDGET [WHO]",
		Short: "Forget what has been used of a budget in its present period",
		Long: "WHO is as moat budget prints it; without it, all that share the budget start afresh.\n\n" +
			"  moat budget reset visitor visitor=1f0c9a2b77e4d310\n" +
			"  moat budget reset site",
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, who := url.Values{"budget": {args[0]}}, "all"
			if len(args) == 2 {
				who = args[1]
				q.Set("who", who)
			}
			body, err := changeBudgets(cmd, http.MethodDelete, *admin, "/budgets?"+q.Encode())
			if err != nil {
				return err
			}
			var done struct {
				Reset bool `json:"reset"`
			}
			switch err = json.Unmarshal(body, &done); {
			case err != nil:
				return fmt.Errorf("the admin listener's answer: %w", err)
			case !done.Reset:
				return hintedError{fmt.Errorf("%s has used nothing of %s in this period", printable(who), printable(args[0])), "moat budget lists who has used most, as WHO is written"}
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "reset %s: %s\n", printable(args[0]), printable(who))
			return err
		},
	}
}

// changeBudgets asks the gate to change something.
func changeBudgets(cmd *cobra.Command, method, admin, path string) ([]byte, error) {
	status, body, err := askAdmin(cmd.Context(), method, admin, path)
	if err != nil || status == http.StatusOK {
		return body, err
	}
	var answer struct {
		Error string `json:"error"`
	}
	if json.Unmarshal(body, &answer) != nil || answer.Error == "" {
		return nil, unexpected(admin, status)
	}
	hint := "moat budget lists the budgets; --admin names another gate"
	if status == http.StatusServiceUnavailable {
		hint = "the store does not answer, so nobody spends meanwhile; mend it and try again"
	}
	return nil, hintedError{errors.New(printable(answer.Error)), hint}
}

func switchLine(now *gateway.Budgets) string {
	if now.Stopped && now.StoppedSince != nil {
		return "Stopped since " + now.StoppedSince.Local().Format(time.DateTime+" MST") + ": routes that have a budget answer 503. moat budget resume lets calls pass again."
	}
	return "Not stopped."
}

func tellBudgets(w io.Writer, body []byte, n int) error {
	var now gateway.Budgets
	if err := json.Unmarshal(body, &now); err != nil {
		return fmt.Errorf("the admin listener's answer: %w", err)
	}
	o := textOptions(w, false)
	o.Width = 0 // what is cut cannot be copied
	_, err := io.WriteString(w, strings.Join(budgetLines(&now, n, o), "\n")+"\n")
	return err
}

func budgetLines(now *gateway.Budgets, n int, o text.Options) []string {
	if len(now.Budgets) == 0 {
		return []string{"No budget is in force."}
	}
	lines := []string{switchLine(now)}
	if now.Stopped {
		lines[0] = paint(o, red, lines[0])
	}
	switch {
	case now.Error == "":
	case now.Store == "ledger":
		lines = append(lines, paint(o, red, "The file cannot be written, so nobody spends beyond what it says already: "+printable(now.Error)))
	default:
		unknown := paint(o, red, "The "+now.Store+" does not answer, so nobody spends: "+printable(now.Error))
		if now.Stopped {
			return append(lines, unknown)
		}
		return []string{unknown}
	}
	if now.Store == "memory" {
		lines = append(lines, "Kept in memory: a restart forgets what has been spent.")
	}
	for i := range now.Budgets {
		b := &now.Budgets[i]
		lines = append(lines, "", paint(o, bold, printable(b.Name))+paint(o, dim, fmt.Sprintf("  by %s, per %s, begins anew %s", b.By, b.Per, b.Resets.Local().Format("Jan 2 15:04 MST"))))
		if b.Mode != "enforce" {
			lines = append(lines, "report only: counted, and not refused")
		}
		lines = append(lines, capLines(b)...)
		if n == 0 || len(b.Top) == 0 {
			continue
		}
		head := []string{"SPENDER"}
		units := counted(b)
		for _, u := range units {
			head = append([]string{">" + strings.ToUpper(u.String())}, head...)
		}
		rows := [][]string{head}
		for _, s := range b.Top[:min(n, len(b.Top))] {
			row := []string{s.Who}
			for _, u := range units {
				row = append([]string{quantity(s.Used, u)}, row...)
			}
			rows = append(rows, row)
		}
		lines = append(lines, columns(rows, o)...)
		lines = append(lines, more(b.Spenders-len(rows)+1)...)
	}
	return lines
}

// counted are the units of a budget that say something, the last first to be read.
func counted(b *gateway.BudgetSpent) []budget.Unit {
	var units []budget.Unit
	for _, u := range budget.Units() {
		if u == budget.Requests || b.Cap.Of(u) > 0 || b.Used.Of(u) > 0 {
			units = append(units, u)
		}
	}
	return units
}

func capLines(b *gateway.BudgetSpent) []string {
	var lines []string
	each := ""
	if b.By != budget.BySite.String() {
		each = " each"
	}
	for _, u := range counted(b) {
		line := fmt.Sprintf("  %-9s %s used", u, quantity(b.Used, u))
		switch most := b.Cap.Of(u); {
		case most > 0 && each == "":
			line += " of " + quantity(b.Cap, u) + ", " + percent(float64(b.Used.Of(u))/float64(most))
		case most > 0:
			line += " by " + plural(b.Spenders, "spender") + ", who have " + quantity(b.Cap, u) + each
		}
		lines = append(lines, line)
	}
	if b.AtOnce > 0 {
		lines = append(lines, fmt.Sprintf("  %-9s %d%s", "at once", b.AtOnce, each))
	}
	return lines
}

func quantity(a budget.Amount, u budget.Unit) string {
	if u == budget.Spend {
		return a.Money.String()
	}
	return strconv.FormatInt(a.Of(u), 10)
}
