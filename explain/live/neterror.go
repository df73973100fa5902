package live

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
)

// netError is an error as Chromium names it, and what there is to say beyond the name.
func netError(err error, scheme string) (name, text string) {
	if name, text, ok := certificateError(err); ok {
		return name, text
	}
	if name, text, ok := tlsError(err, scheme); ok {
		return name, text
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return "net::ERR_NAME_NOT_RESOLVED", ""
	}
	dialing := false
	if op, ok := errors.AsType[*net.OpError](err); ok {
		dialing = op.Op == "dial"
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		return "net::ERR_CONNECTION_REFUSED", ""
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETUNREACH):
		return "net::ERR_ADDRESS_UNREACHABLE", ""
	case dialing && timedOut(err):
		return "net::ERR_CONNECTION_TIMED_OUT", ""
	case timedOut(err):
		return "net::ERR_TIMED_OUT", ""
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "net::ERR_CONNECTION_RESET", ""
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "net::ERR_EMPTY_RESPONSE", ""
	}
	// net/http has no types for these.
	switch text := err.Error(); {
	case strings.Contains(text, "server response headers exceeded"):
		return "net::ERR_RESPONSE_HEADERS_TOO_BIG", ""
	case strings.Contains(text, "server gave HTTP response to HTTPS client"):
		return "net::ERR_SSL_PROTOCOL_ERROR", ""
	case strings.Contains(text, "malformed HTTP"), strings.Contains(text, "malformed MIME header"), strings.Contains(text, "bad Content-Length"):
		return "net::ERR_INVALID_HTTP_RESPONSE", ""
	case strings.Contains(text, "http2:"):
		return "net::ERR_HTTP2_PROTOCOL_ERROR", ""
	}
	return "net::ERR_FAILED", plain(err)
}

func timedOut(err error) bool {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, syscall.ETIMEDOUT) {
		return true
	}
	n, ok := errors.AsType[net.Error](err)
	return ok && n.Timeout()
}

// certificateError is about what a browser shows its "not private" page for.
func certificateError(err error) (name, text string, ok bool) {
	if _, is := errors.AsType[x509.UnknownAuthorityError](err); is {
		return "net::ERR_CERT_AUTHORITY_INVALID", "", true
	}
	if host, is := errors.AsType[x509.HostnameError](err); is {
		return "net::ERR_CERT_COMMON_NAME_INVALID", "its certificate is for another host: " + plain(host), true
	}
	if invalid, is := errors.AsType[x509.CertificateInvalidError](err); is {
		if invalid.Reason == x509.Expired {
			return "net::ERR_CERT_DATE_INVALID", "", true
		}
		return "net::ERR_CERT_INVALID", "its certificate is not valid: " + plain(invalid), true
	}
	if verify, is := errors.AsType[*tls.CertificateVerificationError](err); is {
		return "net::ERR_CERT_INVALID", "its certificate is not valid: " + plain(verify.Err), true
	}
	return "", "", false
}

func tlsError(err error, scheme string) (name, text string, ok bool) {
	if _, is := errors.AsType[tls.RecordHeaderError](err); is {
		return "net::ERR_SSL_PROTOCOL_ERROR", "", true
	}
	alert, is := errors.AsType[tls.AlertError](err)
	if op, opOK := errors.AsType[*net.OpError](err); opOK && op.Op == "remote error" && !is {
		return "net::ERR_SSL_PROTOCOL_ERROR", "it broke off TLS: " + plain(op.Err), true
	}
	if !is || scheme != "https" && scheme != "wss" {
		return "", "", false
	}
	switch uint8(alert) {
	case 40, 70:
		return "net::ERR_SSL_VERSION_OR_CIPHER_MISMATCH", "", true
	case 112:
		return "net::ERR_SSL_UNRECOGNIZED_NAME_ALERT", "", true
	case 116:
		return "net::ERR_SSL_CLIENT_AUTH_CERT_NEEDED", "", true
	}
	return "net::ERR_SSL_PROTOCOL_ERROR", "it broke off TLS: " + plain(alert), true
}

// plain is an error's text without its package's name and without control characters.
func plain(err error) string {
	text := err.Error()
	for _, prefix := range []string{"x509: ", "tls: ", "net/http: ", "http: "} {
		text = strings.TrimPrefix(text, prefix)
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return ' '
		}
		return r
	}, text)
}
