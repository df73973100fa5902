package main

import (
	"strings"
	"testing"

	"github.com/moat-gateway/moat/gateway"
)

func TestWhyTellsWhichSignalSaidWhat(t *testing.T) {
	for _, c := range []struct {
		rec  gateway.Record
		want []string
	}{
		{
			gateway.Record{Step: "bot", Code: "bot-denied", Mode: "enforce", Status: 403, Where: "score 70", Got: "fetch_metadata +40 (none); headers +30 (no Accept-Language); only reported: ja4 +40 (Go)", Want: "less than deny, 60"},
			[]string{"bot-denied  refused with 403\n", "decided by  score 70\n", "\n            fetch_metadata +40 (none)\n", "\n            only reported: ja4 +40 (Go)\n", "less than deny, 60\n"},
		},
		{gateway.Record{Step: "bot", Code: "bot-suspected", Mode: "enforce", Where: "score 40", Got: "headers +40 (curl)"}, []string{"went on; costs more where there are limits or tickets\n"}},
		{gateway.Record{Step: "bot", Code: "bot-suspected", Mode: "report", Where: "score 40", Got: "headers +40 (curl)"}, []string{"would cost more where there are limits or tickets (mode report)\n"}},
		{gateway.Record{Step: "bot", Code: "bot-denied", Mode: "report", Where: "score 80"}, []string{"would be refused (mode report)\n"}},
	} {
		var b strings.Builder
		if err := tell(&b, c.rec); err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(b.String(), want) {
				t.Errorf("no %q in:\n%s", want, b.String())
			}
		}
	}
}
