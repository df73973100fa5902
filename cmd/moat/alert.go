package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/moat-gateway/moat/alert"
)

func alertCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "alert", Short: "Try the webhooks that alerts go to",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(alertTestCommand())
	return cmd
}

func alertTestCommand() *cobra.Command {
	var admin string
	cmd := &cobra.Command{
		Use:   "test",
		Short: "Send a test message to each webhook, and say what came back",
		Long:  "Asks a running gate's admin listener to send it, so that what is tried is the gate's own\nway to the receiver. It is signed as alerts are, sent once, and not repeated.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, body, err := askAdmin(cmd.Context(), http.MethodPost, admin, "/alerts/test")
			if err != nil {
				return err
			}
			if status != http.StatusOK {
				return unexpected(admin, status)
			}
			var attempts []alert.Attempt
			if err = json.Unmarshal(body, &attempts); err != nil {
				return fmt.Errorf("the admin listener's answer: %w", err)
			}
			if len(attempts) == 0 {
				return hintedError{errFailed("the gate has no webhooks"), "name one under alerts.webhooks in its configuration"}
			}
			failed := 0
			tw := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "WEBHOOK\tRESULT\tSTATUS\tTHE RECEIVER SAYS")
			for _, a := range attempts {
				result, says := "delivered", a.Answer
				if a.Error != "" {
					failed++
					result = "failed"
					if a.Status == 0 {
						says = a.Error
					}
				}
				answer := "-"
				if a.Status > 0 {
					answer = strconv.Itoa(a.Status)
				}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\n", a.Webhook, result, answer, printable(cmp.Or(says, "-")))
			}
			if err = tw.Flush(); err == nil && failed > 0 {
				err = errFailed(fmt.Sprintf("%d of %d webhooks failed", failed, len(attempts)))
			}
			return err
		},
	}
	cmd.Flags().StringVar(&admin, "admin", "127.0.0.1:9090", "the gate's admin `address`")
	return cmd
}
