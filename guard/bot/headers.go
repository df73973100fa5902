package bot

import (
	"net/http"
	"strings"
)

// found is what a signal has found in a request: points, and the dearest of the reasons.
type found struct {
	points, most int
	why          string
}

func (f *found) add(points int, why string) {
	f.points += points
	if points > f.most {
		f.most, f.why = points, why
	}
}

// subject is a request as the signals read it.
type subject struct {
	*http.Request
	claim
	facts            Facts
	site, mode, dest string
	// bare is for what browsers send hardly any of these headers with: WebSocket handshakes, and
	// what Chromium reports by itself (https://www.w3.org/TR/reporting-1/).
	bare bool
}

func (q *subject) first(name string) string {
	if v := q.Header[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

func read(r *http.Request, f Facts) subject {
	q := subject{Request: r, facts: f}
	q.claim = claimOf(q.first("User-Agent"))
	q.site, q.mode, q.dest = q.first("Sec-Fetch-Site"), q.first("Sec-Fetch-Mode"), q.first("Sec-Fetch-Dest")
	q.bare = r.Method == http.MethodGet && strings.EqualFold(q.first("Upgrade"), "websocket") && q.first("Sec-Websocket-Key") != "" ||
		r.Method == http.MethodPost && q.first("Content-Type") == "application/reports+json"
	return q
}

// fetchMetadata looks for what no browser sends (https://www.w3.org/TR/fetch-metadata/).
// What looks impossible by the standard and is not, since Chromium and Firefox were seen to do it,
// is not here: a navigation whose destination is empty is a download, or has passed a service worker.
func fetchMetadata(q *subject) (f found) {
	const points = 40
	if q.site == "" || q.mode == "" || q.dest == "" {
		switch {
		case !q.facts.Trustworthy || q.bare:
		case q.site+q.mode+q.dest != "":
			f.add(points, "some of Sec-Fetch-*, where browsers send all")
		case q.sendsFetchMetadata():
			f.add(points, "no Sec-Fetch-*, which this browser always sends")
		}
		return f
	}
	simple := q.Method == http.MethodGet || q.Method == http.MethodHead
	json := !simple && strings.HasPrefix(strings.ToLower(q.first("Content-Type")), "application/json")
	form := simple || q.Method == http.MethodPost
	switch q.site {
	case "none", "same-origin", "same-site", "cross-site":
	default:
		f.add(points, "a Sec-Fetch-Site that does not exist")
	}
	switch q.mode {
	case "navigate":
		switch {
		case subresource(q.dest):
			f.add(points, "a navigation to a sub-resource")
		case !form:
			f.add(points, "a navigation with a method that none has")
		case json:
			f.add(points, "a navigation that posts JSON")
		}
	case "no-cors", "cors", "websocket":
		switch {
		case q.dest == "document":
			f.add(points, "a document that nobody navigates to")
		case q.first("Sec-Fetch-User") != "":
			f.add(points, "Sec-Fetch-User without a navigation")
		case q.mode == "no-cors" && (!form || json):
			f.add(points, "no-cors with what takes CORS")
		case q.mode == "cors" && (q.site == "cross-site" || q.site == "same-site") && len(q.Header["Origin"]) == 0:
			f.add(points, "CORS across origins without Origin")
		}
	}
	if !simple && subresource(q.dest) {
		f.add(points, "a sub-resource with a method that loads none")
	}
	if !simple && q.sendsFetchMetadata() && len(q.Header["Origin"]) == 0 {
		f.add(points, "no Origin, which this browser always sends with this method")
	}
	return f
}

// sendsFetchMetadata is for versions that always do. Chromium has since 80, Firefox since 90 and
// Safari since 16.4.
func (q *subject) sendsFetchMetadata() bool {
	switch q.family {
	case chromium, firefox:
		return q.major >= 90
	case safari:
		return q.major >= 17
	case nameless, program, robot, stranger, unknown:
	}
	return false
}

// subresource reports whether a destination is what pages load as a part of them, with GET.
func subresource(dest string) bool {
	switch dest {
	case "audio", "font", "image", "manifest", "paintworklet", "audioworklet", "script", "serviceworker", "sharedworker", "style", "track", "video", "worker":
		return true
	}
	return false
}

// headers looks at the User-Agent, and at what a browser of that name sends beside it.
func headers(q *subject) (f found) {
	if len(q.Header["User-Agent"]) > 1 {
		f.add(40, "two User-Agents")
	}
	switch q.family {
	case nameless:
		f.add(40, "no User-Agent")
	case program:
		f.add(40, q.name) // by which it says so itself
	case robot:
		f.add(40, "a robot that is not known here")
	case stranger:
		f.add(20, "a User-Agent that no browser has")
	case unknown:
	case firefox, safari:
		if len(q.Header["Sec-Ch-Ua"])+len(q.Header["Sec-Ch-Ua-Mobile"])+len(q.Header["Sec-Ch-Ua-Platform"]) > 0 {
			f.add(40, "sec-ch-ua, which this browser does not send")
		}
	case chromium:
		q.clientHints(&f)
	}
	if !q.family.browser() {
		return f
	}
	if q.facts.Direct && q.ProtoMajor == 1 && q.ProtoMinor == 0 {
		f.add(40, "HTTP/1.0, which no browser speaks")
	}
	if (q.family == chromium || q.family == firefox) && q.major >= 90 && !q.bare {
		q.content(&f)
	}
	return f
}

// clientHints compares the User-Agent with the hints that Chromium sends beside it, in low entropy
// (https://wicg.github.io/ua-client-hints/). Workers' own requests have none, nor have downloads.
func (q *subject) clientHints(f *found) {
	brands := q.first("Sec-Ch-Ua")
	if brands == "" {
		if q.plain && q.major >= 100 && q.facts.Trustworthy && q.mode == "navigate" && q.dest == "document" {
			f.add(40, "no sec-ch-ua, which this browser sends with navigations")
		}
		return
	}
	if strings.Contains(brands, `"HeadlessChrome"`) {
		f.add(40, "HeadlessChrome")
	}
	_, number, _ := strings.Cut(brands, `"Chromium";v="`)
	number, _, _ = strings.Cut(number, `"`)
	if major, rest := version(number); major != q.major || rest != "" {
		f.add(40, "sec-ch-ua and User-Agent are of two versions")
	}
	if s := q.first("Sec-Ch-Ua-Platform"); s != "" && !q.runsOn(s) {
		f.add(40, "sec-ch-ua-platform and User-Agent are of two systems")
	}
	if s := q.first("Sec-Ch-Ua-Mobile"); s != "" && q.plain && (s == "?1") != q.mobile {
		f.add(40, "sec-ch-ua-mobile and User-Agent are of two devices")
	}
}

// runsOn compares sec-ch-ua-platform with what the User-Agent says. An Android that asks for the
// desktop's page says there that it is a Linux.
func (q *subject) runsOn(hint string) bool {
	switch q.platform {
	case windows:
		return hint == `"Windows"`
	case macOS:
		return hint == `"macOS"`
	case android:
		return hint == `"Android"`
	case linux:
		return hint != `"Windows"` && hint != `"macOS"`
	case iOS:
		return false // where no Chromium sends hints
	case chromeOS, elsewhere:
	}
	return true
}

// content looks at what Chromium and Firefox have said in each request since long.
func (q *subject) content(f *found) {
	switch lang := q.first("Accept-Language"); lang {
	case "":
		f.add(20, "no Accept-Language")
	case "*":
		f.add(20, "Accept-Language: *")
	}
	switch accept := q.first("Accept"); {
	case accept == "" && q.mode != "" && q.mode != "navigate": // downloads have none
		f.add(20, "no Accept")
	case q.mode == "navigate" && q.dest == "document" && !strings.HasPrefix(accept, "text/html"):
		f.add(20, "a navigation that does not ask for HTML")
	}
	// What stands between may take codings away, so this alone leads to nothing.
	switch coding := q.first("Accept-Encoding"); {
	case coding == "":
		f.add(10, "no Accept-Encoding")
	case q.facts.Trustworthy && q.first("Range") == "" && !strings.Contains(coding, "br"):
		f.add(10, "an Accept-Encoding without br")
	}
}
