package explain_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/moat-gateway/moat/browser"
	"github.com/moat-gateway/moat/explain"
)

// said is a diagnosis in short: what failed, then what else is known.
func said(d explain.Diagnosis) string {
	what := string(d.CORS)
	if len(d.Candidates) > 0 {
		what = fmt.Sprint(d.Candidates)
	}
	for _, s := range []string{d.Other, d.Method, d.Header, d.Value, d.Directive} {
		if s != "" {
			what += " " + s
		}
	}
	if d.Status != 0 {
		what += fmt.Sprint(" ", d.Status)
	}
	return strings.TrimSpace(what)
}

func TestDecodeKnowsChrome(t *testing.T) {
	const (
		access    = "Access to fetch at 'https://api.example/x' from origin 'https://app.example' has been blocked by CORS policy: "
		preflight = access + "Response to preflight request doesn't pass access control check: "
		acao      = " Access-Control-Allow-Origin"
	)
	for text, want := range map[string]string{
		"No 'Access-Control-Allow-Origin' header is present on the requested resource.": "MissingAllowOriginHeader" + acao,
		"No 'Access-Control-Allow-Origin' header is present on the requested resource. If an opaque response serves your needs, set the request's mode to 'no-cors' to fetch the resource with CORS disabled.": "MissingAllowOriginHeader" + acao,
		"The value of the 'Access-Control-Allow-Origin' header in the response must not be the wildcard '*' when the request's credentials mode is 'include'.":                                                 "WildcardOriginNotAllowed" + acao,
		"The 'Access-Control-Allow-Origin' header contains multiple values 'https://app.example, *', but only one is allowed. Have the server send the header with a valid value.":                             "MultipleAllowOriginValues" + acao + " https://app.example, *",
		"The 'Access-Control-Allow-Origin' header contains the invalid value ''. Have the server send the header with a valid value.":                                                                          "InvalidAllowOriginValue" + acao,
		"The 'Access-Control-Allow-Origin' header contains the invalid value 'app.example'.":                                                                                                                   "InvalidAllowOriginValue" + acao + " app.example",
		"The 'Access-Control-Allow-Origin' header has a value 'https://b.example' that is not equal to the supplied origin. Have the server send the header with a valid value.":                               "AllowOriginMismatch" + acao + " https://b.example",
		"The value of the 'Access-Control-Allow-Credentials' header in the response is '' which must be 'true' when the request's credentials mode is 'include'.":                                              "InvalidAllowCredentials Access-Control-Allow-Credentials",
		"Cross origin requests are only supported for protocol schemes: chrome, chrome-extension, data, http, https.":                                                                                          "CorsDisabledScheme",
		"Cannot parse Access-Control-Allow-Methods response header field in preflight response.":                                                                                                               "InvalidAllowMethodsPreflightResponse Access-Control-Allow-Methods",
		"Cannot parse Access-Control-Allow-Headers response header field in preflight response.":                                                                                                               "InvalidAllowHeadersPreflightResponse Access-Control-Allow-Headers",
		"Method PUT is not allowed by Access-Control-Allow-Methods in preflight response.":                                                                                                                     "MethodDisallowedByPreflightResponse PUT",
		"Request header field x-a is not allowed by Access-Control-Allow-Headers in preflight response.":                                                                                                       "HeaderDisallowedByPreflightResponse x-a",
		"Redirect location 'https://a:b@c.example/' contains a username and password, which is disallowed for cross-origin requests.":                                                                          "RedirectContainsCredentials",
		"Permission was denied for this request to access the `loopback` address space.":                                                                                                                       "LocalNetworkAccessPermissionDenied lna",
		"The request client is not a secure context and the resource is in more-private address space `local`.":                                                                                                "InsecureLocalNetwork lna",
		"Cross origin requests are not allowed by request mode.":                                                                                                                                               "DisallowedByMode",
	} {
		d, err := explain.Decode("app.js:12 " + access + text)
		if err != nil || len(d) != 1 {
			t.Errorf("%s: %+v, %v", text, d, err)
			continue
		}
		if got := said(d[0]); got != want || d[0].Browser != "chrome" || d[0].URL != "https://api.example/x" || d[0].Origin != "https://app.example" || d[0].API != "fetch" {
			t.Errorf("%s: %q, want %q; %+v", text, got, want, d[0])
		}
	}
	for text, want := range map[string]string{
		preflight + "It does not have HTTP ok status.":                                                                                                                                                "PreflightInvalidStatus",
		preflight + "Redirect is not allowed for a preflight request.":                                                                                                                                "PreflightDisallowedRedirect",
		preflight + "No 'Access-Control-Allow-Origin' header is present on the requested resource.":                                                                                                   "PreflightMissingAllowOriginHeader" + acao,
		preflight + "The 'Access-Control-Allow-Origin' header has a value 'null' that is not equal to the supplied origin.":                                                                           "PreflightAllowOriginMismatch" + acao + " null",
		"Fetch API cannot load https://api.example/x. Response for preflight has invalid HTTP status code 405":                                                                                        "PreflightInvalidStatus 405",
		"XMLHttpRequest cannot load http://api.example/x. No 'Access-Control-Allow-Origin' header is present on the requested resource. Origin 'http://app.example' is therefore not allowed access.": "MissingAllowOriginHeader" + acao,
		`Fetch API cannot load https://api.example/x. Request mode is "same-origin" but the URL's origin is not same as the request origin https://app.example.`:                                      "DisallowedByMode",
		"TypeError: Failed to execute 'fetch' on 'Window': 'PUT' is unsupported in no-cors mode.":                                                                                                     "api PUT",
		"Uncaught (in promise) TypeError: Failed to fetch":                                                                                                                                            "unknown",
		"GET https://api.example/x net::ERR_FAILED 200 (OK)":                                                                                                                                          "unknown GET",
		"GET https://api.example/x net::ERR_NAME_NOT_RESOLVED":                                                                                                                                        "network GET",
		"Refused to connect to 'https://api.example/x' because it violates the following Content Security Policy directive: \"connect-src 'self'\".":                                                  "csp connect-src 'self'",
		"Loading the script 'https://cdn.example/a.js' violates the following Content Security Policy directive: \"script-src 'self'\". Note that 'script-src-elem' was not explicitly set, so 'script-src' is used as a fallback. The action has been blocked.": "csp script-src 'self'",
		"Mixed Content: The page at 'https://app.example/' was loaded over HTTPS, but requested an insecure element 'http://img.example/a.png'. This request was automatically upgraded to HTTPS":                                                                "warning",
		"Cross-Origin Read Blocking (CORB) blocked cross-origin response https://api.example/x with MIME type application/json.":                                                                                                                                 "orb",
		"(blocked:csp)": "csp",
	} {
		d, err := explain.Decode(text)
		if err != nil || len(d) != 1 {
			t.Errorf("%s: %+v, %v", text, d, err)
		} else if got := said(d[0]); got != want || d[0].Browser != "chrome" {
			t.Errorf("%s: %q, want %q; %+v", text, got, want, d[0])
		}
	}
}

func TestDecodeKnowsFirefox(t *testing.T) {
	const blocked = "Cross-Origin Request Blocked: The Same Origin Policy disallows reading the remote resource at https://api.example/x. "
	for text, want := range map[string]string{
		"(Reason: CORS disabled).":                                                                                               "CORSDisabled: unknown",
		"(Reason: CORS request did not succeed). Status code: (null).":                                                           "CORSDidNotSucceed: network",
		"(Reason: CORS header ‘Origin’ cannot be added).":                                                                        "CORSOriginHeaderNotAdded: unknown",
		"(Reason: CORS request external redirect not allowed).":                                                                  "CORSExternalRedirectNotAllowed: [RedirectContainsCredentials PreflightDisallowedRedirect]",
		"(Reason: CORS request not http).":                                                                                       "CORSRequestNotHttp: CorsDisabledScheme",
		"(Reason: CORS header ‘Access-Control-Allow-Origin’ missing). Status code: 200.":                                         "CORSMissingAllowOrigin: [MissingAllowOriginHeader PreflightMissingAllowOriginHeader] Access-Control-Allow-Origin 200",
		"(Reason: Multiple CORS header ‘Access-Control-Allow-Origin’ not allowed).":                                              "CORSMultipleAllowOriginNotAllowed: [MultipleAllowOriginValues PreflightMultipleAllowOriginValues] Access-Control-Allow-Origin",
		"(Reason: CORS header ‘Access-Control-Allow-Origin’ does not match ‘https://b.example’).":                                "CORSAllowOriginNotMatchingOrigin: [AllowOriginMismatch PreflightAllowOriginMismatch InvalidAllowOriginValue PreflightInvalidAllowOriginValue] Access-Control-Allow-Origin https://b.example",
		"(Reason: Credential is not supported if the CORS header ‘Access-Control-Allow-Origin’ is ‘*’).":                         "CORSNotSupportingCredentials: [WildcardOriginNotAllowed PreflightWildcardOriginNotAllowed] Access-Control-Allow-Origin",
		"(Reason: Did not find method in CORS header ‘Access-Control-Allow-Methods’).":                                           "CORSMethodNotFound: MethodDisallowedByPreflightResponse Access-Control-Allow-Methods",
		"(Reason: expected ‘true’ in CORS header ‘Access-Control-Allow-Credentials’).":                                           "CORSMissingAllowCredentials: [InvalidAllowCredentials PreflightInvalidAllowCredentials] Access-Control-Allow-Credentials",
		"(Reason: CORS preflight response did not succeed). Status code: 302.":                                                   "CORSPreflightDidNotSucceed: PreflightDisallowedRedirect 302",
		"(Reason: CORS preflight response did not succeed). Status code: 404.":                                                   "CORSPreflightDidNotSucceed: PreflightInvalidStatus 404",
		"(Reason: CORS preflight channel did not succeed).":                                                                      "CORSPreflightDidNotSucceed: [PreflightInvalidStatus PreflightDisallowedRedirect]",
		"(Reason: invalid token ‘a b’ in CORS header ‘Access-Control-Allow-Methods’).":                                           "CORSInvalidAllowMethod: InvalidAllowMethodsPreflightResponse Access-Control-Allow-Methods a b",
		"(Reason: invalid token ‘a b’ in CORS header ‘Access-Control-Allow-Headers’).":                                           "CORSInvalidAllowHeader: InvalidAllowHeadersPreflightResponse Access-Control-Allow-Headers a b",
		"(Reason: header ‘x-a’ is not allowed according to header ‘Access-Control-Allow-Headers’ from CORS preflight response).": "CORSMissingAllowHeaderFromPreflight: HeaderDisallowedByPreflightResponse x-a",
		"(Reason: missing token ‘x-a’ in CORS header ‘Access-Control-Allow-Headers’ from CORS preflight channel).":               "CORSMissingAllowHeaderFromPreflight: HeaderDisallowedByPreflightResponse x-a",
	} {
		for _, text := range []string{blocked + text, strings.ReplaceAll(blocked+text, " ", "\n   "), blocked + text + "\n[Learn More]"} {
			d, err := explain.Decode(text)
			if err != nil || len(d) != 1 {
				t.Errorf("%s: %+v, %v", text, d, err)
				continue
			}
			if got := d[0].Firefox + ": " + said(d[0]); got != want || d[0].Browser != "firefox" || d[0].URL != "https://api.example/x" {
				t.Errorf("%s: %q, want %q; %+v", text, got, want, d[0])
			}
		}
	}
	for text, want := range map[string]string{
		"TypeError: NetworkError when attempting to fetch resource.": "unknown",
		"Content-Security-Policy: The page’s settings blocked the loading of a resource (connect-src) at https://api.example/x because it violates the following directive: “connect-src 'self'”":            "csp connect-src 'self'",
		"Content Security Policy: The page’s settings blocked the loading of a resource at https://api.example/x (“connect-src”).":                                                                           "csp connect-src",
		"Blocked loading mixed active content “http://api.example/x”":                                                                                                                                        "mixed-content",
		"The resource at “https://img.example/a” was blocked by OpaqueResponseBlocking. Reason: “nosniff with either blocklisted or text/plain”.":                                                            "orb",
		"The resource at “https://img.example/a” was blocked due to its Cross-Origin-Resource-Policy header (or lack thereof). See https://developer.mozilla.org/docs/Web/HTTP/Cross-Origin_Resource_Policy": "corp",
		"https://developer.mozilla.org/en-US/docs/Web/HTTP/Guides/CORS/Errors/CORSMissingAllowOrigin":                                                                                                        "[MissingAllowOriginHeader PreflightMissingAllowOriginHeader] Access-Control-Allow-Origin",
	} {
		d, err := explain.Decode(text)
		if err != nil || len(d) != 1 {
			t.Errorf("%s: %+v, %v", text, d, err)
		} else if got := said(d[0]); got != want || d[0].Browser != "firefox" {
			t.Errorf("%s: %q, want %q; %+v", text, got, want, d[0])
		}
	}
}

func TestDecodeKnowsSafari(t *testing.T) {
	for text, want := range map[string]string{
		"Origin https://app.example is not allowed by Access-Control-Allow-Origin. Status code: 403": "[MissingAllowOriginHeader AllowOriginMismatch InvalidAllowOriginValue] Access-Control-Allow-Origin 403",
		"Origin https://app.example is not allowed by Access-Control-Allow-Origin.":                  "[MissingAllowOriginHeader AllowOriginMismatch InvalidAllowOriginValue PreflightMissingAllowOriginHeader PreflightAllowOriginMismatch PreflightInvalidAllowOriginValue] Access-Control-Allow-Origin",
		"Cannot use wildcard in Access-Control-Allow-Origin when credentials flag is true.":          "[WildcardOriginNotAllowed PreflightWildcardOriginNotAllowed] Access-Control-Allow-Origin",
		"Access-Control-Allow-Origin cannot contain more than one origin.":                           "[MultipleAllowOriginValues PreflightMultipleAllowOriginValues] Access-Control-Allow-Origin",
		"Credentials flag is true, but Access-Control-Allow-Credentials is not \"true\".":            "[InvalidAllowCredentials PreflightInvalidAllowCredentials] Access-Control-Allow-Credentials",
		"Preflight response is not successful. Status code: 401":                                     "PreflightInvalidStatus 401",
		"Preflight response is not successful. Status code: 302":                                     "PreflightDisallowedRedirect 302",
		"Method PUT is not allowed by Access-Control-Allow-Methods.":                                 "MethodDisallowedByPreflightResponse PUT",
		"Request header field X-A is not allowed by Access-Control-Allow-Headers.":                   "HeaderDisallowedByPreflightResponse X-A",
		"Header Access-Control-Allow-Headers has an invalid value: a b":                              "InvalidAllowHeadersPreflightResponse Access-Control-Allow-Headers a b",
		"XMLHttpRequest cannot load https://api.example/x due to access control checks.":             "unknown",
		"TypeError: Load failed": "unknown",
		"Refused to connect to https://api.example/x because it does not appear in the connect-src directive of the Content Security Policy.": "csp connect-src",
		"[blocked] The page at https://app.example/ was not allowed to display insecure content from http://api.example/x.":                   "mixed-content",
		"Cancelled load to https://img.example/a because it violates the resource's Cross-Origin-Resource-Policy response header.":            "corp",
	} {
		text = strings.ReplaceAll(text, "http://api.example/x", "https://api.example/x")
		text = strings.ReplaceAll(text, "https://img.example/a", "https://api.example/x")
		for _, text := range []string{text, "[Error] " + text + " (app.js, line 12)", text + "\nFetch API cannot load https://api.example/x due to access control checks.\nFailed to load resource: " + text} {
			d, err := explain.Decode(text)
			if err != nil || len(d) != 1 {
				t.Errorf("%s: %+v, %v", text, d, err)
				continue
			}
			// A value is the last in its message, so that the place in the code clings to it.
			if got := said(d[0]); !strings.HasPrefix(got, want) || d[0].Browser != "safari" {
				t.Errorf("%s: %q, want %q; %+v", text, got, want, d[0])
			}
		}
	}
}

// What the model says a console shows must be known here.
func TestDecodeKnowsWhatTheModelPrints(t *testing.T) {
	for _, name := range browser.CORSErrors() {
		status := "200"
		switch name { //nolint:exhaustive // for most the status does not matter
		case browser.PreflightInvalidStatus:
			status = "404"
		case browser.PreflightDisallowedRedirect:
			status = "302"
		}
		particular := strings.NewReplacer(
			"URL", "https://api.example/x", "ORIGIN", "https://app.example", "PAGE", "https://app.example/", "VALUE", "https://b.example",
			"METHOD", "PUT", "HEADER", "x-a", "STATUS", status, "LOCATION", "https://a:b@c.example/", "ADDRESS", "local")
		info := name.Info()
		texts := map[string]string{"firefox": particular.Replace(info.FirefoxText), "safari": particular.Replace(info.Safari)}
		for _, api := range []browser.API{browser.Fetch, browser.XHR, browser.Image, browser.Script, browser.Stylesheet, browser.Font} {
			facts := browser.ConsoleFacts{
				Error: name, API: api, URL: "https://api.example/x", Origin: "https://app.example", Parameter: "x",
				Space: browser.Local, TargetSpace: browser.Loopback,
			}
			texts["chrome "+string(api)] = facts.Text()
			facts.FirstURL = "https://first.example/"
			texts["chrome redirected "+string(api)] = facts.Text()
		}
		for in, text := range texts {
			if text == "" {
				continue
			}
			found, err := explain.Decode(text)
			if err != nil || len(found) != 1 {
				t.Errorf("%s in %s: %q gives %+v, %v", name, in, text, found, err)
				continue
			}
			d := found[0]
			fits := d.CORS == name || slices.Contains(d.Candidates, name)
			if d.CORS == "" && len(d.Candidates) == 0 {
				fits = in == "firefox" || in == "safari" // which can say no more than that
			}
			if browserName, _, _ := strings.Cut(in, " "); !fits || d.Browser != browserName {
				t.Errorf("%s in %s: %q gives %+v", name, in, text, d)
			}
			if strings.HasPrefix(in, "chrome") && d.URL != "https://api.example/x" {
				t.Errorf("%s in %s: %q gives the URL %q", name, in, text, d.URL)
			}
		}
	}
}

func TestDecodeReadsOtherLanguagesByTheHeader(t *testing.T) {
	d, err := explain.Decode("Blocage d’une requête multiorigine (Cross-Origin Request) : la politique « Same Origin » ne permet pas de consulter la ressource distante située sur https://api.example/x. Raison : l’en-tête CORS « Access-Control-Allow-Origin » est manquant. Code d’état : 200.")
	if err != nil || len(d) != 1 || d[0].CORS != "" || len(d[0].Candidates) < 4 || d[0].URL != "https://api.example/x" {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestDecodeKeepsAllOfSeveral(t *testing.T) {
	d, err := explain.Decode(`GET https://a.example/ net::ERR_CONNECTION_REFUSED
GET https://b.example/ net::ERR_CONNECTION_REFUSED
GET https://b.example/ net::ERR_CONNECTION_REFUSED
GET https://c.example/ net::ERR_FAILED`)
	if err != nil || len(d) != 3 {
		t.Errorf("%+v, %v", d, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "no error of a browser is known",
		"it does not work":               "no error of a browser is known",
		"Access-Control-Allow-Origin: *": "no error of a browser is known",
		strings.Repeat("a", 300<<10):     "more than",
	} {
		if d, err := explain.Decode(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %+v, error %v", text, d, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, text := range pasteSamples(f, "console") {
		f.Add(text)
	}
	f.Add("“’net::ERR_X.Y /CORS/Errors/CORSDidNotSucceed token 'x' in CORS header 'Access-Control-Allow-Methods'")
	f.Fuzz(func(t *testing.T, text string) {
		found, err := explain.Decode(text)
		if (err == nil) != (len(found) > 0) {
			t.Fatalf("%d diagnoses and error %v", len(found), err)
		}
		for _, d := range found {
			if d.CORS == "" && len(d.Candidates) == 0 && d.Other == "" {
				t.Fatalf("a diagnosis says nothing: %+v", d)
			}
			if d.CORS != "" && len(d.Candidates) > 0 {
				t.Fatalf("a diagnosis has a name and candidates: %+v", d)
			}
			if len(d.Text) > 4096 || len(d.Value) > 20_000 {
				t.Fatalf("a diagnosis has %d bytes of text", len(d.Text))
			}
		}
	})
}
