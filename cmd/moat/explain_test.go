package main

import (
	"strings"
	"testing"

	"github.com/moat-gateway/moat/explain"
)

func TestAHeaderWithALineBreakIsRefusedWithoutItsValue(t *testing.T) {
	f := explainFlags{headers: []string{"Authorization: SECRET\nX: SECRET"}}
	err := f.applyHeaders(new(explain.Question))
	if err == nil || strings.Contains(err.Error(), "SECRET") || !strings.Contains(err.Error(), "Authorization") {
		t.Errorf("%v", err)
	}
}

func TestEscapedJSONIsTheSameJSON(t *testing.T) {
	if got, want := escaped("{\n  \"é…\": \"\u009b\u202e\U000e0041\"\n}\n"), "{\n  \"é…\": \"\\u009b\\u202e\\udb40\\udc41\"\n}\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}
