package gateway

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

func TestTheFirstTicketStandsInTheHead(t *testing.T) {
	for _, c := range []struct{ doc, want string }{
		{"<!doctype html><html><head><title>a</title></head></html>", "<!doctype html><html><head>@<title>a</title></head></html>"},
		{"<!DOCTYPE html>\n<HTML lang=en>\n<HEAD data-x='>'>\n<meta>", "<!DOCTYPE html>\n<HTML lang=en>\n<HEAD data-x='>'>@\n<meta>"},
		{"<!-- <head> --><!doctype html><title>a</title>", "<!-- <head> --><!doctype html>@<title>a</title>"},
		{"<!doctype html><html>text", "<!doctype html><html>@text"},
		{"<p>a<head>", "@<p>a<head>"},
		{"", "@"},
		{"\ufeff<!doctype html><title>a</title>", "\ufeff<!doctype html>@<title>a</title>"},
		{"\ufeff\n<p>a", "\ufeff@\n<p>a"},
		{"\ufefftext<p>", "\ufeff@text<p>"},
		{"<!doctype html>" + strings.Repeat(" ", embedWithin) + "<head>", "<!doctype html>@" + strings.Repeat(" ", embedWithin) + "<head>"},
	} {
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(c.doc), "byte by byte": iotest.OneByteReader(strings.NewReader(c.doc)), "with its end": iotest.DataErrReader(strings.NewReader(c.doc))} {
			got, err := io.ReadAll(&insertion{ReadCloser: io.NopCloser(r), text: []byte("@")})
			if err != nil || string(got) != c.want {
				t.Errorf("%s: %.60q became %.60q, %v; want %.60q", name, c.doc, got, err, c.want)
			}
		}
	}
}

func TestAPageThatBreaksOffDoesNotPassForAWholeOne(t *testing.T) {
	broken := errors.New("broken off")
	b := &insertion{ReadCloser: io.NopCloser(io.MultiReader(strings.NewReader("<!doc"), iotest.ErrReader(broken))), text: []byte("@")}
	if got, err := io.ReadAll(b); !errors.Is(err, broken) || string(got) != "<!doc" {
		t.Errorf("%q, %v", got, err)
	}
}
