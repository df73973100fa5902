package config

import (
	"fmt"
	"io"
	"log/slog"
)

// hidden is what a Secret prints as.
const hidden = "[secret]"

// Secret is a text that does not print. Only Reveal gives it away.
type Secret struct {
	text string
	// parts are what the references in it stand for; the text around them need not be secret.
	parts []string
}

// Reveal returns the text.
func (s Secret) Reveal() string { return s.text }

// String returns a placeholder.
func (Secret) String() string { return hidden }

// GoString returns a placeholder.
func (Secret) GoString() string { return hidden }

// Format writes a placeholder, whatever the verb.
func (Secret) Format(f fmt.State, _ rune) { io.WriteString(f, hidden) } //nolint:errcheck // a Formatter has nobody to tell.

// MarshalText returns a placeholder, for JSON and YAML too.
func (Secret) MarshalText() ([]byte, error) { return []byte(hidden), nil }

// LogValue returns a placeholder.
func (Secret) LogValue() slog.Value { return slog.StringValue(hidden) }
