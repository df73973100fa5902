package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/gateway"
	"github.com/moat-gateway/moat/guard"
)

func whyCommand() *cobra.Command {
	var (
		admin  string
		asJSON bool
		n      int
	)
	cmd := &cobra.Command{
		Use:   "why [ID]",
		Short: "Explain a refusal by its id, or list the latest",
		Long:  "Asks a running gate's admin listener. The id is in the refusal that the client got,\nand in the log.",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := "/decisions?n=" + strconv.Itoa(n)
			if len(args) == 1 {
				path = "/decisions/" + url.PathEscape(args[0])
			}
			body, err := ask(cmd, admin, path)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case asJSON:
				_, err = out.Write(body)
				return err
			case len(args) == 1:
				var rec gateway.Record
				if err = json.Unmarshal(body, &rec); err != nil {
					return fmt.Errorf("the admin listener's answer: %w", err)
				}
				return tell(out, rec)
			}
			var all []gateway.Record
			if err = json.Unmarshal(body, &all); err != nil {
				return fmt.Errorf("the admin listener's answer: %w", err)
			}
			return list(out, all)
		},
	}
	cmd.Flags().StringVar(&admin, "admin", "127.0.0.1:9090", "the gate's admin `address`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVarP(&n, "number", "n", 20, "how many to list")
	return cmd
}

// maxAnswer bounds what is read from an admin listener.
const maxAnswer = 16 << 20

func ask(cmd *cobra.Command, admin, path string) ([]byte, error) {
	status, body, err := askAdmin(cmd.Context(), http.MethodGet, admin, path)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusNotFound && strings.Contains(string(body), "no such decision"):
		return nil, hintedError{fmt.Errorf("%q: no such decision", strings.TrimPrefix(path, "/decisions/")), "it may have been overwritten by newer ones, or be of another instance; moat why lists the latest"}
	case status != http.StatusOK:
		return nil, unexpected(admin, status)
	}
	return body, nil
}

// askAdmin asks a gate's admin listener.
func askAdmin(ctx context.Context, method, admin, path string) (status int, body []byte, err error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+admin+path, http.NoBody)
	if _, _, split := net.SplitHostPort(admin); err != nil || split != nil || strings.Contains(admin, "/") {
		return 0, nil, usageError{fmt.Errorf("--admin: %q: not host:port", admin), "for instance 127.0.0.1:9090"}
	}
	client := &http.Client{Timeout: 10 * time.Second}
	res, err := client.Do(req)
	if err != nil {
		if ue, ok := errors.AsType[*url.Error](err); ok {
			err = ue.Err
		}
		return 0, nil, hintedError{fmt.Errorf("no answer from the admin listener: %w", err), isItRunning(admin)}
	}
	defer res.Body.Close() //nolint:errcheck // it was only read.
	body, err = io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	return res.StatusCode, body, err
}

func unexpected(admin string, status int) error {
	return hintedError{fmt.Errorf("%s answered %d %s", admin, status, http.StatusText(status)), isItRunning(admin)}
}

func isItRunning(admin string) string { return "is moat running, and with --admin " + admin + "?" }

func tell(w io.Writer, r gateway.Record) error {
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(tw, "%s\t%s\n", name, printable(value))
		}
	}
	outcome := "refused"
	if r.Mode != "enforce" {
		outcome = "would be refused (mode " + r.Mode + ")"
	}
	switch {
	case r.Code == guard.BotSuspected.String() && r.Mode == "enforce":
		outcome = "went on; costs more where there are limits or tickets"
	case r.Code == guard.BotSuspected.String():
		outcome = "would cost more where there are limits or tickets (mode " + r.Mode + ")"
	case r.Code == guard.CredentialEchoed.String():
		outcome = "recorded; the answer was passed on, masked"
	}
	if r.Status > 0 {
		outcome += " with " + strconv.Itoa(r.Status)
	}
	row(r.Code, outcome)
	row("cause", r.Cause)
	switch {
	case r.Step == guard.Bot.String() && strings.HasPrefix(r.Where, "score "):
		row("decided by", r.Where)
		for signal := range strings.SplitSeq(r.Got, "; ") { // as guard/bot lists them
			row("", signal)
		}
	case r.Step == guard.Body.String() && r.Got == "": // what stands there is not kept
		row("decided by", r.Where)
	case r.Where != "":
		row("decided by", r.Where+": "+strconv.Quote(r.Got))
	}
	row("wanted", r.Want)
	row("to mend it", r.Fix)
	row("request", r.Method+" "+r.Host+r.Path)
	row("client", r.Client)
	row("route", r.Route)
	row("step", r.Step)
	row("time", r.Time.Format(time.RFC3339))
	row("client told", r.UserSees)
	return tw.Flush()
}

func list(w io.Writer, all []gateway.Record) error {
	if len(all) == 0 {
		_, err := fmt.Fprintln(w, "Nothing has been refused.")
		return err
	}
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "ID\tTIME\tCODE\tMODE\tCLIENT\tREQUEST")
	for _, r := range all {
		fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\n", r.ID, r.Time.Local().Format(time.TimeOnly), r.Code, r.Mode, r.Client, printable(r.Method+" "+r.Host+r.Path))
	}
	return tw.Flush()
}

// printable keeps what clients sent from speaking to the terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || 0x80 <= r && r < 0xa0 {
			return '�'
		}
		return r
	}, s)
}
