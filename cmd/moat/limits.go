package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/moat-gateway/moat/explain/text"
	"github.com/moat-gateway/moat/gateway"
)

// lookEvery is how often --watch asks.
const lookEvery = time.Second

func limitsCommand() *cobra.Command {
	var (
		admin         string
		asJSON, watch bool
		n             int
	)
	cmd := &cobra.Command{
		Use:   "limits",
		Short: "Show who is limited now and who asks most, or reset a key",
		Long:  "Asks a running gate's admin listener. Counts are those of that gate alone, since it\nstarted and for ten minutes at most.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			out := cmd.OutOrStdout()
			path := "/limits?n=" + strconv.Itoa(n)
			switch {
			case n < 1:
				return usageError{fmt.Errorf("--number: %d: shows nothing", n), "leave it out for 20"}
			case watch && asJSON:
				return usageError{errors.New("--watch draws on a terminal; --json cannot stand beside"), "ask again as often as you like: moat limits --json"}
			case watch:
				return watchLimits(cmd.Context(), out, admin, path, n)
			}
			body, err := ask(cmd, admin, path)
			if err != nil {
				return err
			}
			if asJSON {
				_, err = out.Write(body)
				return err
			}
			l, err := readLimits(body)
			if err != nil {
				return err
			}
			o := textOptions(out, false)
			o.Width = 0 // what is cut cannot be copied
			_, err = io.WriteString(out, strings.Join(limitLines(l, n, o), "\n")+"\n")
			return err
		},
	}
	cmd.PersistentFlags().StringVar(&admin, "admin", "127.0.0.1:9090", "the gate's admin `address`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it live, on a terminal, until ctrl-C")
	cmd.Flags().IntVarP(&n, "number", "n", 20, "how many to list")
	cmd.AddCommand(resetCommand(&admin))
	return cmd
}

func resetCommand(admin *string) *cobra.Command {
	var limit string
	cmd := &cobra.Command{
		Use:   "reset KEY",
		Short: "Forget what a client has used up",
		Long: "KEY is as moat limits prints it. An address alone means its own network, on every route\n" +
			"and method that a limit counts apart; \"everybody\" is the key that all clients share.\n" +
			"What is counted at once is not reset: it ends by itself.\n\n" +
			"  moat limits reset 203.0.113.7\n" +
			"  moat limits reset 2001:db8::/64 GET /v1/ --limit visitor\n" +
			"  moat limits reset account=bob@example.com",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q := url.Values{"key": {strings.Join(args, " ")}}
			if limit != "" {
				q.Set("limit", limit)
			}
			status, body, err := askAdmin(cmd.Context(), http.MethodDelete, *admin, "/limits?"+q.Encode())
			if err != nil {
				return err
			}
			return tellReset(cmd.OutOrStdout(), *admin, limit, status, body)
		},
	}
	cmd.Flags().StringVar(&limit, "limit", "", "the `name` of the limit; without it, every limit that has the key")
	return cmd
}

func tellReset(w io.Writer, admin, limit string, status int, body []byte) error {
	var answer struct {
		gateway.LimitsReset
		Error string `json:"error"`
	}
	err := json.Unmarshal(body, &answer)
	hint := "moat limits lists the limits, and the keys that are limited now"
	if limit == "" {
		hint += "; --limit NAME says why one has no such key"
	}
	switch {
	case err == nil && answer.Error != "":
		return hintedError{errors.New(printable(answer.Error)), hint}
	case status != http.StatusOK:
		return unexpected(admin, status)
	case err != nil:
		return fmt.Errorf("the admin listener's answer: %w", err)
	}
	for _, k := range answer.Reset {
		fmt.Fprintf(w, "reset %s: %s\n", printable(k.Limit), printable(k.Key))
	}
	for _, k := range answer.StillLimited {
		fmt.Fprintf(w, "still limited by %s: %s\n", printable(k.Limit), printable(k.Key))
	}
	return nil
}

func readLimits(body []byte) (l gateway.Limits, err error) {
	if err = json.Unmarshal(body, &l); err != nil {
		err = fmt.Errorf("the admin listener's answer: %w", err)
	}
	return l, err
}

// watchLimits draws what is limited, in place, until it is interrupted. It uses the
// terminal's other screen, so that what stood there before is there afterwards.
func watchLimits(ctx context.Context, w io.Writer, admin, path string, n int) error {
	file, ok := w.(*os.File)
	if !ok || !term.IsTerminal(int(file.Fd())) || os.Getenv("TERM") == "dumb" {
		return usageError{errors.New("--watch: standard output is no terminal that can be drawn on"), "leave out --watch, or use --json, and ask again as often as you like"}
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	look := func() (gateway.Limits, error) {
		status, body, err := askAdmin(ctx, http.MethodGet, admin, path)
		if err == nil && status != http.StatusOK {
			err = unexpected(admin, status)
		}
		if err != nil {
			return gateway.Limits{}, err
		}
		return readLimits(body)
	}
	seen, err := look()
	if err != nil {
		return err // a gate that is not there from the start will hardly come
	}
	const enter, leave = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
	if _, err = io.WriteString(file, enter); err != nil {
		return err
	}
	defer io.WriteString(file, leave) //nolint:errcheck // the terminal is gone, then.
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if _, err = io.WriteString(file, frame(seen, n, admin, err, file)); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var next gateway.Limits
		if next, err = look(); err == nil {
			seen = next
		}
	}
}

// frame is one picture: over the last one, line by line, so that nothing flickers.
func frame(l gateway.Limits, n int, admin string, failed error, file *os.File) string {
	o := textOptions(file, false)
	_, height, err := term.GetSize(int(file.Fd()))
	if err != nil || height < 1 {
		height = 24
	}
	title := paint(o, bold, cut(o, "moat limits  "+printable(admin)+"  "+time.Now().Format(time.TimeOnly)+"  ctrl-C ends"))
	if failed != nil {
		title = paint(o, red, cut(o, "asking again: "+printable(failed.Error())))
	}
	var lines []string
	for n = min(n, height); n > 0; n-- {
		if lines = append([]string{title, ""}, limitLines(l, n, o)...); len(lines) <= height {
			break
		}
	}
	return "\x1b[H" + strings.Join(lines[:min(len(lines), height)], "\x1b[K\r\n") + "\x1b[K\x1b[J"
}

const (
	bold = "\x1b[1m"
	red  = "\x1b[31m"
	dim  = "\x1b[2m"
)

func paint(o text.Options, code, s string) string {
	if !o.Color {
		return s
	}
	return code + s + "\x1b[0m"
}

// cut shortens a line to the terminal's width, if there is a terminal.
func cut(o text.Options, s string) string {
	more := "…"
	if o.ASCII {
		more = "..."
	}
	if o.Width <= len(more) || utf8.RuneCountInString(s) <= o.Width {
		return s
	}
	return string([]rune(s)[:o.Width-utf8.RuneCountInString(more)]) + more
}

// limitLines is what moat limits prints: at most n rows of each table.
func limitLines(l gateway.Limits, n int, o text.Options) []string {
	lines := limitedLines(l, n, o)
	lines = append(append(lines, ""), talkerLines(l, n, o)...)
	return append(append(lines, ""), inForceLines(l, n, o)...)
}

func limitedLines(l gateway.Limits, n int, o text.Options) []string {
	if l.LimitedInAll == 0 {
		return []string{"Nobody is limited now."}
	}
	rows := [][]string{{">AGAIN IN", ">REFUSED", "SINCE", "LIMIT", "KEY"}}
	for _, k := range l.Limited[:min(n, len(l.Limited))] {
		limit := k.Limit + ": " + k.Want
		if k.Mode != "enforce" {
			limit += " (" + k.Mode + " only)"
		}
		rows = append(rows, []string{wait(k.Again), strconv.FormatUint(k.Refused, 10), clock(k.Since), limit, k.Key})
	}
	lines := append([]string{paint(o, bold, "Limited now")}, columns(rows, o)...)
	return append(lines, more(l.LimitedInAll-len(rows)+1)...)
}

func talkerLines(l gateway.Limits, n int, o text.Options) []string {
	if len(l.Talkers) == 0 {
		return []string{"No requests since " + clock(l.TalkersSince) + "."}
	}
	atLeast := slices.ContainsFunc(l.Talkers, func(t gateway.Talker) bool { return t.AtLeast })
	would := slices.ContainsFunc(l.Talkers, func(t gateway.Talker) bool { return t.WouldRefuse > 0 })
	head := []string{">REQUESTS", ">SHARE", ">REFUSED", "CLIENT"}
	if would {
		head = slices.Insert(head, 3, ">WOULD BE")
	}
	rows := [][]string{head}
	for _, t := range l.Talkers[:min(n, len(l.Talkers))] {
		asked := strconv.FormatUint(t.Requests, 10)
		switch {
		case t.AtLeast:
			asked += "+"
		case atLeast:
			asked += " "
		}
		row := []string{asked, percent(t.Share), strconv.FormatUint(t.Refused, 10), t.Client}
		if would {
			row = slices.Insert(row, 3, strconv.FormatUint(t.WouldRefuse, 10))
		}
		rows = append(rows, row)
	}
	title := fmt.Sprintf("Top talkers of %d requests since %s", l.Requests, clock(l.TalkersSince))
	lines := append([]string{paint(o, bold, cut(o, title))}, columns(rows, o)...)
	if atLeast {
		lines = append(lines, paint(o, dim, cut(o, "+ or more: so many clients have come that not all could be followed")))
	}
	return lines
}

func inForceLines(l gateway.Limits, n int, o text.Options) []string {
	if len(l.Limits) == 0 {
		return []string{"No rate limit is in force."}
	}
	rows := [][]string{{"NAME", "LIMIT", "BY", "MODE", "ROUTES"}}
	for _, in := range l.Limits[:min(n, len(l.Limits))] {
		limit := in.Limit
		if in.AtOnce > 0 {
			limit = strings.TrimPrefix(limit+", "+strconv.Itoa(in.AtOnce)+" at once", ", ")
		}
		if len(in.Tiers) > 0 {
			limit += "; " + plural(len(in.Tiers), "tier")
		}
		rows = append(rows, []string{in.Name, limit, cmp.Or(strings.Join(in.By, " "), "everybody"), in.Mode, strings.Join(in.Routes, ", ")})
	}
	lines := append([]string{paint(o, bold, "Limits in force")}, columns(rows, o)...)
	lines = append(lines, more(len(l.Limits)-len(rows)+1)...)
	if l.Store != nil {
		lines = append(lines, "")
		for _, s := range storeLines(l.Store) {
			lines = append(lines, cut(o, printable(s)))
		}
	}
	return lines
}

func storeLines(s *gateway.LimitStore) []string {
	table := fmt.Sprintf("Table of %s, %s full", size(s.Bytes), percent(s.Occupied))
	switch {
	case s.EvictedLimited > 0:
		table += fmt.Sprintf("; %d debts forgotten early, %d of clients that were limited: raise store.memory", s.Evicted, s.EvictedLimited)
	case s.Evicted > 0:
		table += fmt.Sprintf("; %d debts forgotten early, none of a client that was limited", s.Evicted)
	}
	lines := []string{table}
	if s.Kind != "memory" {
		shared := "Shared by " + s.Kind
		if s.Nodes > 0 {
			shared += " between " + plural(s.Nodes, "process")
		}
		if s.Down {
			shared += ", which does not answer: each route does what its store_down says"
		}
		lines = append(lines, shared)
	}
	if s.Unanswered > 0 && s.LastErrorAt != nil {
		lines = append(lines, fmt.Sprintf("%d requests without an answer from it, last at %s: %s", s.Unanswered, clock(*s.LastErrorAt), s.LastError))
	}
	return lines
}

// columns sets rows under each other; the first row is the heading. A heading that begins
// with ">" stands over numbers, on the right. The last column is cut to the width.
func columns(rows [][]string, o text.Options) []string {
	widths, right := make([]int, len(rows[0])), make([]bool, len(rows[0]))
	for i, h := range rows[0] {
		rows[0][i], right[i] = strings.CutPrefix(h, ">")
	}
	for _, row := range rows {
		for i := range row {
			row[i] = printable(row[i])
			widths[i] = max(widths[i], utf8.RuneCountInString(row[i]))
		}
	}
	lines := make([]string, 0, len(rows))
	for j, row := range rows {
		var b strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			switch {
			case right[i]:
				b.WriteString(pad + cell + "  ")
			case i == len(row)-1:
				b.WriteString(cell)
			default:
				b.WriteString(cell + pad + "  ")
			}
		}
		line := cut(o, b.String())
		if j == 0 {
			line = paint(o, dim, line)
		}
		lines = append(lines, line)
	}
	return lines
}

func more(n int) []string {
	if n <= 0 {
		return nil
	}
	return []string{fmt.Sprintf("and %d more", n)}
}

func plural(n int, what string) string {
	switch {
	case n == 1:
		return "1 " + what
	case strings.HasSuffix(what, "s"):
		what += "e"
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func clock(t time.Time) string {
	if time.Since(t) > 20*time.Hour {
		return t.Local().Format("Jan 2 15:04")
	}
	return t.Local().Format(time.TimeOnly)
}

// wait is a number of seconds as people say it.
func wait(seconds int64) string {
	d := time.Duration(seconds) * time.Second
	switch {
	case d >= 48*time.Hour:
		return fmt.Sprintf("%dd", (d+24*time.Hour-1)/(24*time.Hour))
	case d >= time.Hour:
		return fmt.Sprintf("%dh%02dm", d/time.Hour, d%time.Hour/time.Minute)
	case d >= time.Minute:
		return fmt.Sprintf("%dm%02ds", d/time.Minute, d%time.Minute/time.Second)
	}
	return fmt.Sprintf("%ds", seconds)
}

func percent(share float64) string {
	if share > 0 && share < 0.01 {
		return "<1%"
	}
	return fmt.Sprintf("%.0f%%", share*100)
}

func size(bytes int) string {
	if bytes < 1<<20 {
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
	return fmt.Sprintf("%d MiB", bytes>>20)
}
