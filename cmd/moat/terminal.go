package main

import (
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/term"

	"github.com/moat-gateway/moat/explain/text"
)

// textOptions finds out what the output takes: colour and width only if it is a terminal,
// and UTF-8 unless the locale says otherwise.
func textOptions(w io.Writer, noColor bool) text.Options {
	o := text.Options{ASCII: !utf8Locale()}
	file, ok := w.(*os.File)
	if ok && term.IsTerminal(int(file.Fd())) {
		o.Color = !noColor && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
		if width, _, err := term.GetSize(int(file.Fd())); err == nil {
			o.Width = width
		}
	}
	if n, err := strconv.Atoi(os.Getenv("COLUMNS")); err == nil && n > 0 {
		o.Width = n
	}
	return o
}

// utf8Locale goes by the variables in the order of POSIX. Where none is set, as in
// containers and on Windows, UTF-8 is what is there today.
func utf8Locale() bool {
	for _, name := range []string{"LC_ALL", "LC_CTYPE", "LANG"} {
		if v := os.Getenv(name); v != "" {
			v = strings.ToUpper(v)
			return strings.Contains(v, "UTF-8") || strings.Contains(v, "UTF8")
		}
	}
	return true
}
