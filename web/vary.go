package web

import (
	"slices"
	"strings"
)

// AddVary makes sure that Vary names field. What is there already stays: another
// part of the answer depends on it (RFC 9110 section 12.5.5). A "*" covers all.
func AddVary(h map[string][]string, field string) {
	old := h["Vary"]
	for _, line := range old {
		if line == field || ListContains(line, field) || ListContains(line, "*") {
			return
		}
	}
	if len(old) == 0 {
		h["Vary"] = []string{field}
		return
	}
	// A copy: the old slice may be shared.
	h["Vary"] = append(slices.Clip(old), field)
}

// ListContains reports whether the comma-separated list holds the token, whatever its
// case (RFC 9110 section 5.6.1). It does not allocate.
func ListContains(list, token string) bool {
	for len(list) > 0 {
		item, rest, _ := strings.Cut(list, ",")
		if strings.EqualFold(strings.Trim(item, " \t"), token) {
			return true
		}
		list = rest
	}
	return false
}

// HeaderContains reports whether any line of the header field holds the token.
func HeaderContains(lines []string, token string) bool {
	for _, l := range lines {
		if ListContains(l, token) {
			return true
		}
	}
	return false
}
