package browser

import "strings"

const defaultReferrerPolicy = "strict-origin-when-cross-origin"

// maxReferrer: a longer one is cut to its origin
// (https://w3c.github.io/webappsec-referrer-policy/#determine-requests-referrer, step 6).
const maxReferrer = 4096

func knownReferrerPolicy(p string) bool {
	switch p {
	case "no-referrer", "no-referrer-when-downgrade", "same-origin", "origin", "strict-origin",
		"origin-when-cross-origin", defaultReferrerPolicy, "unsafe-url":
		return true
	}
	return false
}

// policyFrom reads a Referrer-Policy field: the last policy that is known counts.
func policyFrom(field, old string) string {
	for p := range strings.SplitSeq(field, ",") {
		if p = strings.ToLower(strings.Trim(p, " \t")); knownReferrerPolicy(p) {
			old = p
		}
	}
	return old
}

// referrer is https://w3c.github.io/webappsec-referrer-policy/#determine-requests-referrer;
// "" is no referrer. With abroad, the URL counts as another origin's also if it is not.
func referrer(policy string, from, to location, byScheme, abroad bool) string {
	origin := from.origin.String() + "/"
	u := *from.url
	u.User, u.Fragment, u.RawFragment = nil, "", ""
	full := u.String()
	if len(full) > maxReferrer {
		full = origin
	}
	same := from.origin == to.origin && !abroad
	downgrade := trustworthy(from.origin) && !trustworthy(to.origin)
	if byScheme {
		downgrade = from.origin.Scheme() == "https" && to.origin.Scheme() != "https"
	}
	switch policy {
	case "no-referrer":
		return ""
	case "origin":
		return origin
	case "unsafe-url":
		return full
	case "strict-origin":
		if downgrade {
			return ""
		}
		return origin
	case "same-origin":
		if same {
			return full
		}
		return ""
	case "origin-when-cross-origin":
		if same {
			return full
		}
		return origin
	case "no-referrer-when-downgrade":
		if downgrade {
			return ""
		}
		return full
	}
	switch {
	case same:
		return full
	case downgrade:
		return ""
	}
	return origin
}

// hidesOrigin reports whether the policy turns the Origin header of a request that is not
// CORS into null (https://fetch.spec.whatwg.org/#append-a-request-origin-header).
func hidesOrigin(policy string, from, to location) bool {
	switch policy {
	case "no-referrer":
		return true
	case "no-referrer-when-downgrade", "strict-origin", defaultReferrerPolicy:
		return from.origin.Scheme() == "https" && to.origin.Scheme() != "https"
	case "same-origin":
		return from.origin != to.origin
	}
	return false
}
