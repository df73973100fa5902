package lab

import (
	"bytes"
	"strings"

	"github.com/yuin/goldmark"
	"github.com/yuin/goldmark/extension"
)

var markdown = goldmark.New(goldmark.WithExtensions(extension.Table))

// html is a lesson's text as HTML. Markup in it is left out, for goldmark's default is to
// trust nobody.
func html(text string) string {
	var b bytes.Buffer
	if err := markdown.Convert([]byte(text), &b); err != nil {
		panic(err) // a bytes.Buffer takes everything
	}
	return strings.TrimSpace(b.String())
}
