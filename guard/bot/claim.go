package bot

import "strings"

// family is what a User-Agent says that the client is.
type family uint8

const (
	// nameless sends no User-Agent.
	nameless family = iota
	// program says by its name that it is one.
	program
	// robot says that it is one that visits sites by itself.
	robot
	// stranger has a name that no browser has.
	stranger
	// unknown looks like a browser of which nothing is known here.
	unknown
	chromium
	firefox
	safari
)

var familyNames = [...]string{"nameless", "program", "robot", "stranger", "unknown", "chromium", "firefox", "safari"}

func (f family) String() string { return familyNames[f] }

func (f family) browser() bool { return f >= unknown }

// platform is the system that a browser says that it runs on.
type platform uint8

const (
	elsewhere platform = iota
	windows
	macOS
	linux
	chromeOS
	android
	iOS
)

// claim is what a client says of itself in its User-Agent.
type claim struct {
	family family
	major  int
	// plain is for a Chromium all of whose names are known: others, such as those inside of apps,
	// leave out what these always send.
	plain    bool
	platform platform
	mobile   bool
	// name is by which a program says that it is one.
	name string
}

// programs are names that User-Agents of HTTP clients begin with. It is what they say themselves:
// no browser is called so.
var programs = []string{
	"curl/", "Wget/", "Wget2/", "libcurl", "HTTPie/", "xh/", "fetch", "aria2/", "axel",
	"python-requests/", "Python-urllib/", "python-httpx/", "Python/", "aiohttp/", "Scrapy/", "urllib3/", "httpx/", "pycurl/",
	"Go-http-client/", "go-resty/", "Go ", "colly", "fasthttp",
	"node", "undici", "axios/", "got ", "got/", "node-fetch/", "Bun/", "Deno/", "superagent", "needle/",
	"Java/", "Java-http-client/", "Apache-HttpClient/", "okhttp/", "Jakarta", "ktor-client", "Ktor client", "unirest-java/", "AsyncHttpClient", "Jersey/",
	"Ruby", "rest-client/", "Faraday", "http.rb/", "Typhoeus", "libwww-perl/", "LWP", "lwp-", "WWW-Mechanize/", "PHP", "GuzzleHttp/", "Symfony", "PECL::HTTP", "HTTP_Request2/",
	"reqwest/", "hyper/", "ureq/", "isahc/", "surf/", "Dart/", "RestSharp/", ".NET", "WinHTTP", "Microsoft.", "PowerShell", "PostmanRuntime/", "insomnia/", "Insomnia/", "Paw/", "bruno-runtime/",
	"k6/", "hey/", "ApacheBench/", "Apache-JMeter", "vegeta", "Siege", "siege/", "wrk", "gatling", "Locust", "autocannon", "Nikto", "sqlmap/", "masscan", "zgrab", "nuclei", "ffuf", "gobuster", "feroxbuster", "WFuzz/", "libhttp", "Mojolicious", "Manticore", "Crystal", "curb", "lua-resty-http",
}

// others are what User-Agents of browsers begin with that do not begin as all others do: Safari's
// player of streams, Opera Mini, and Edge where it stands in for Internet Explorer.
var others = []string{"AppleCoreMedia/", "Opera/9.80 (", "Mozilla/4.0 (compatible; MSIE "}

// driven are names that browsers take on when a program drives them, and inside of which they
// stand in a User-Agent that is a browser's otherwise.
var driven = []string{"HeadlessChrome/", "PhantomJS/", "SlimerJS/", "Puppeteer", "Playwright", "Selenium", "Cypress/", "jsdom/", "HtmlUnit", "WindowsPowerShell/"}

// robotic are what robots that visit sites say that they are.
var robotic = []string{"bot/", "Bot/", "bot;", "Bot;", "spider", "Spider", "crawler", "Crawler", "+http", "archiver", "Slurp", "facebookexternalhit", "WebPreview"}

// chromiums are the names that those Chromium browsers have beside Chrome's whose headers are Chrome's.
var chromiums = []string{"Mobile", "Safari/", "Edg/", "EdgA/", "OPR/", "SamsungBrowser/", "Vivaldi/", "YaBrowser/"}

// claimOf reads a User-Agent. It takes time in proportion to its length, and allocates nothing.
func claimOf(ua string) claim {
	rest, isBrowser := strings.CutPrefix(ua, "Mozilla/5.0 (")
	if ua == "" {
		return claim{}
	}
	if !isBrowser {
		for _, name := range programs {
			if strings.HasPrefix(ua, name) {
				return claim{family: program, name: strings.TrimRight(name, "/ ")}
			}
		}
	}
	system, rest, _ := strings.Cut(rest, ") ")
	c := claim{family: stranger}
	for _, name := range others {
		if strings.HasPrefix(ua, name) {
			c.family = unknown
		}
	}
	if isBrowser {
		c = browserOf(system, rest)
	}
	if c.plain {
		rest = "" // none of whose names says more
	}
	for _, part := range [...]string{system, rest} {
		for _, name := range driven {
			if strings.Contains(part, name) {
				return claim{family: program, name: strings.TrimRight(name, "/ ")}
			}
		}
		for _, name := range robotic {
			if strings.Contains(part, name) {
				return claim{family: robot}
			}
		}
	}
	return c
}

// browserOf reads what stands behind "Mozilla/5.0 (".
func browserOf(system, rest string) claim {
	c := claim{family: unknown, platform: platformOf(system), mobile: strings.Contains(rest, " Mobile")}
	if names, ok := strings.CutPrefix(rest, "AppleWebKit/537.36 (KHTML, like Gecko) Chrome/"); ok {
		var major int
		if major, names = version(names); major > 0 {
			c.family, c.major = chromium, major
			c.plain = !strings.Contains(system, "; wv") && knownChromium(names)
		}
		return c
	}
	if names, ok := strings.CutPrefix(rest, "Gecko/"); ok {
		_, number, _ := strings.Cut(names, " Firefox/")
		if major, after := version(number); major > 0 && after == "" {
			c.family, c.major = firefox, major
		}
		return c
	}
	if names, ok := strings.CutPrefix(rest, "AppleWebKit/605.1.15 (KHTML, like Gecko) Version/"); ok && (c.platform == macOS || c.platform == iOS) {
		if major, after := version(names); major > 0 && strings.Contains(after, " Safari/") {
			c.family, c.major = safari, major
		}
	}
	return c
}

func knownChromium(names string) bool {
	for names != "" {
		var name string
		name, names, _ = strings.Cut(strings.TrimPrefix(names, " "), " ")
		known := false
		for _, k := range chromiums {
			known = known || strings.HasPrefix(name, k)
		}
		if !known {
			return false
		}
	}
	return true
}

// version reads the number that s begins with, up to its first dot, and drops the rest of it.
func version(s string) (major int, rest string) {
	i := 0
	for ; i < len(s) && i < 4 && '0' <= s[i] && s[i] <= '9'; i++ {
		major = 10*major + int(s[i]-'0')
	}
	for i < len(s) && s[i] != ' ' {
		if c := s[i]; c != '.' && (c < '0' || c > '9') {
			return 0, ""
		}
		i++
	}
	return major, s[i:]
}

func platformOf(system string) platform {
	for _, p := range []struct {
		begin string
		is    platform
	}{
		{"Windows", windows}, {"Macintosh", macOS}, {"iPhone", iOS}, {"iPad", iOS}, {"X11; CrOS", chromeOS}, {"Linux; Android", android}, {"Android", android}, {"X11; ", linux}, {"Linux", linux},
	} {
		if strings.HasPrefix(system, p.begin) {
			return p.is
		}
	}
	return elsewhere
}
