package explain

import (
	"fmt"
	"strconv"
	"strings"
)

// snippet collects lines.
type snippet struct{ b strings.Builder }

func (c *snippet) line(format string, args ...any) {
	fmt.Fprintf(&c.b, format, args...)
	c.b.WriteByte('\n')
}

// when writes the line only if the condition holds.
func (c *snippet) when(condition bool, format string, args ...any) {
	if condition {
		c.line(format, args...)
	}
}

func (c *snippet) String() string { return c.b.String() }

// inQuotes puts a checked text between double quotes, which is a string that stands for
// itself in Go, JavaScript, Java, Python, YAML, nginx and Caddy alike.
func inQuotes(s string) string { return `"` + s + `"` }

// stringList is the inside of a list of strings.
func stringList(list []string) string {
	var b strings.Builder
	for i, s := range list {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(inQuotes(s))
	}
	return b.String()
}

func commas(list []string) string { return strings.Join(list, ", ") }

// sentences joins those that are not empty.
func sentences(all ...string) string {
	var said []string
	for _, s := range all {
		if s != "" {
			said = append(said, s)
		}
	}
	return strings.Join(said, " ")
}

func only(condition bool, sentence string) string {
	if condition {
		return sentence
	}
	return ""
}

// pageNote is about the page, whatever the target.
func (g *grant) pageNote() string {
	return only(insecure(g.origin), "Whoever is on the network path can put script into pages of an http: origin, and then calls as your page: serve the page over https.")
}

const (
	othersNote = "Other requests of the page may need more methods and headers: add them to the lists."
	// placeholder is where the server behind a gateway is taken to be.
	placeholder = "127.0.0.1:3000"
)

func (g *grant) moat() Mend {
	var c snippet
	c.line("version: 1")
	c.line("listen: 127.0.0.1:8080")
	c.line("public_origins: [%s] # what pages call", inQuotes(g.api.String()))
	c.when(insecure(g.api), "dangerously_allow_insecure_public_origins: true # until the API has a certificate")
	c.line("")
	c.line("upstreams:")
	c.line("  api:")
	c.line("    url: http://" + placeholder + " # your server, as it is")
	c.line("")
	c.line("policies:")
	c.line("  pages:")
	c.line("    origins: [%s]", inQuotes(g.origin.String()))
	c.when(insecure(g.origin), "    dangerously_allow_insecure_origins: true # until the page has a certificate")
	usual := []string{"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"}
	if extra := lacking(g.methods, usual); len(extra) > 0 {
		c.line("    methods: [%s]", stringList(append(usual, extra...)))
	}
	headers := lacking(g.headers, []string{"authorization", "content-type"})
	if age := g.preflight && g.maxAge > 0 && g.maxAge != int(usualMaxAge.Seconds()); age || g.credentials || len(headers)+len(g.expose) > 0 {
		c.line("    cors:")
		c.when(g.credentials, "      credentials: true")
		c.when(len(headers) > 0, "      request_headers: [%s]", stringList(g.headers))
		c.when(len(g.expose) > 0, "      exposed_headers: [%s]", stringList(g.expose))
		c.when(age, "      max_age: %ds", g.maxAge)
	}
	c.line("")
	c.line("routes:")
	c.line("  - {match: /, upstream: api, auth: public, policy: pages}")
	return Mend{
		Target: ForMoat, Title: "moat in front of the server", Language: "yaml", File: "moat.yaml", Code: c.String(),
		Note: sentences(
			"The server's own CORS headers are removed, and what other pages ask for does not reach it.",
			"If programs call the API too, add browserless: allow to the route.",
			g.pageNote()),
	}
}

func lacking(want, have []string) []string {
	var rest []string
next:
	for _, w := range want {
		for _, h := range have {
			if w == h {
				continue next
			}
		}
		rest = append(rest, w)
	}
	return rest
}

func (g *grant) guard() Mend {
	var c snippet
	options := ""
	if insecure(g.origin) {
		options = "DangerouslyAllowInsecureOrigins: true"
	}
	c.line(`// import "github.com/moat-gateway/moat/guard/cors"`)
	c.line(`// import "github.com/moat-gateway/moat/web"`)
	c.line("origins, faults := web.NewOriginSet([]string{%s}, web.OriginSetOptions{%s})", inQuotes(g.origin.String()), options)
	c.line("if len(faults) > 0 {")
	c.line("\tlog.Fatal(faults)")
	c.line("}")
	c.line("pages, errs := cors.New(cors.Policy{")
	fields := []struct{ name, value string }{
		{"Origins", "origins"},
		{"Credentials", only(g.credentials, "true")},
		{"Methods", "[]string{" + stringList(g.methods) + "}"},
		{"RequestHeaders", only(len(g.headers) > 0, "[]string{"+stringList(g.headers)+"}")},
		{"ExposedHeaders", only(len(g.expose) > 0, "[]string{"+stringList(g.expose)+"}")},
		{"MaxAge", only(g.maxAge > 0 && g.preflight, strconv.Itoa(g.maxAge)+" * time.Second")},
	}
	width := 0
	for _, f := range fields {
		if f.value != "" {
			width = max(width, len(f.name)+1)
		}
	}
	for _, f := range fields {
		c.when(f.value != "", "\t%-*s %s,", width, f.name+":", f.value)
	}
	c.line("})")
	c.line("if len(errs) > 0 {")
	c.line("\tlog.Fatal(errs)")
	c.line("}")
	c.line("// Around the whole mux and outside authentication: a preflight carries no credentials.")
	c.line("handler := pages.Handler(mux)")
	return Mend{
		Target: ForGo, Title: "Go, with moat's guard", Language: "go", File: "main.go: where the server's handler is made", Code: c.String(),
		Note: sentences(
			"What pages of other origins ask for is refused with 403 before the handler runs.",
			othersNote,
			only(insecure(g.api), "Over plain http browsers do not say Sec-Fetch-Site: set Policy.Public to the API's origin, so that its own pages still pass."),
			g.pageNote()),
	}
}

func (g *grant) netHTTP() Mend {
	var c snippet
	c.line("// allowPage lets the page's origin call. It goes around the whole mux and outside")
	c.line("// authentication: a preflight carries no credentials.")
	c.line("func allowPage(next http.Handler) http.Handler {")
	c.line("\tconst page = %s", inQuotes(g.origin.String()))
	c.line("\treturn http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {")
	c.line("\t\th := w.Header()")
	c.line(`		h.Add("Vary", "Origin")`)
	if g.preflight {
		c.line(`		allowed := r.Header.Get("Origin") == page`)
		c.line("\t\tif allowed {")
	} else {
		c.line(`		if r.Header.Get("Origin") == page {`)
	}
	c.line(`			h.Set("Access-Control-Allow-Origin", page)`)
	c.when(g.credentials, `			h.Set("Access-Control-Allow-Credentials", "true")`)
	c.when(len(g.expose) > 0, `			h.Set("Access-Control-Expose-Headers", %s)`, inQuotes(commas(g.expose)))
	c.line("\t\t}")
	if g.preflight {
		c.line(`		if r.Method == http.MethodOptions && r.Header.Get("Access-Control-Request-Method") != "" {`)
		c.line("\t\t\tif allowed {")
		c.line(`				h.Set("Access-Control-Allow-Methods", %s)`, inQuotes(commas(g.methods)))
		c.when(len(g.headers) > 0, `				h.Set("Access-Control-Allow-Headers", %s)`, inQuotes(commas(g.headers)))
		c.when(g.maxAge > 0, `				h.Set("Access-Control-Max-Age", "%d")`, g.maxAge)
		c.line("\t\t\t}")
		c.line("\t\t\tw.WriteHeader(http.StatusNoContent)")
		c.line("\t\t\treturn")
		c.line("\t\t}")
	}
	c.line("\t\tnext.ServeHTTP(w, r)")
	c.line("\t})")
	c.line("}")
	return Mend{
		Target: ForGoNetHTTP, Title: "Go, with net/http alone", Language: "go", File: "main.go: http.ListenAndServe(addr, allowPage(mux))", Code: c.String(),
		Note: sentences(
			"Requests of other origins still run; their pages cannot read the answers.",
			"Around an httputil.ReverseProxy, remove Access-Control-Allow-Origin from the answer in ModifyResponse.",
			only(g.preflight, othersNote), g.pageNote()),
	}
}

// nginxKey is a text as the source value of a map. Long ones do not fit into the buckets
// of the hash table that nginx makes of them by default, and it would not start; a
// regular expression needs no table.
func nginxKey(s string) string {
	if len(s) <= 44 {
		return inQuotes(s)
	}
	escape := strings.NewReplacer(".", `\.`, "+", `\+`, "[", `\[`, "]", `\]`)
	return inQuotes("~^" + escape.Replace(s) + "$")
}

func (g *grant) nginx() Mend {
	var c snippet
	origin := g.origin.String()
	type field struct{ name, variable, value string }
	fields := []field{{"Access-Control-Allow-Origin", "$cors_origin", ""}}
	c.line("# In the http block. A map gives an empty value where nothing matches, and a header")
	c.line("# with an empty value is not sent.")
	c.line("map $http_origin $cors_origin { %s %s; }", nginxKey(origin), inQuotes(origin))
	page := func(name, variable, value string) {
		c.line("map $cors_origin %s { %s %s; }", variable, nginxKey(origin), inQuotes(value))
		fields = append(fields, field{name, variable, value})
	}
	if g.credentials {
		page("Access-Control-Allow-Credentials", "$cors_credentials", "true")
	}
	if len(g.expose) > 0 {
		page("Access-Control-Expose-Headers", "$cors_expose", commas(g.expose))
	}
	if g.preflight {
		c.line("# A preflight is an OPTIONS request that asks for a method.")
		c.line(`map "$request_method $http_access_control_request_method" $cors_preflight { "~^OPTIONS ." 1; }`)
		preflight := func(name, variable, value string) {
			c.line("map $cors_preflight$cors_origin %s { %s %s; }", variable, nginxKey("1"+origin), inQuotes(value))
			fields = append(fields, field{name, variable, value})
		}
		preflight("Access-Control-Allow-Methods", "$cors_methods", commas(g.methods))
		if len(g.headers) > 0 {
			preflight("Access-Control-Allow-Headers", "$cors_headers", commas(g.headers))
		}
		if g.maxAge > 0 {
			preflight("Access-Control-Max-Age", "$cors_max_age", strconv.Itoa(g.maxAge))
		}
	}
	c.line("")
	c.line("server {")
	c.line("    # … listen, server_name and the locations, as they are …")
	c.line("")
	c.line("    # \"always\" is for errors too. A location that has an add_header of its own")
	c.line("    # inherits none of these: repeat them there.")
	for _, f := range fields {
		c.line("    add_header %s %s always;", f.name, f.variable)
	}
	c.line("    add_header Vary Origin always;")
	c.line("    # Said twice, it is refused. The same goes for a location's own proxy_hide_header.")
	for _, f := range fields {
		c.line("    proxy_hide_header %s;", f.name)
	}
	c.when(!g.credentials, "    proxy_hide_header Access-Control-Allow-Credentials;")
	if g.preflight {
		c.line("")
		c.line("    # Here it comes before auth_basic and auth_request; a preflight carries no credentials.")
		c.line("    if ($cors_preflight) { return 204; }")
	}
	c.line("}")
	dropped := ""
	for _, h := range g.headers {
		if strings.ContainsAny(h, "_.") {
			dropped = "nginx drops request headers whose names have an underscore or a dot: set underscores_in_headers on, or ignore_invalid_headers off."
		}
	}
	return Mend{
		Target: ForNginx, Title: "nginx in front of the server", Language: "nginx", File: "nginx.conf: the maps in the http block, the rest in the server block", Code: c.String(),
		Note: sentences(
			"For fastcgi_pass and its like, write fastcgi_hide_header instead of proxy_hide_header.",
			dropped, only(g.preflight, othersNote), g.pageNote()),
	}
}

func (g *grant) caddy() Mend {
	var c snippet
	origin := inQuotes(g.origin.String())
	c.line("%s {", g.api)
	c.line("\t@page header Origin %s", origin)
	c.line("\theader @page {")
	c.line("\t\tAccess-Control-Allow-Origin %s", origin)
	c.when(g.credentials, "\t\tAccess-Control-Allow-Credentials true")
	c.when(len(g.expose) > 0, "\t\tAccess-Control-Expose-Headers %s", inQuotes(commas(g.expose)))
	c.line("\t}")
	c.line("\theader +Vary Origin")
	if g.preflight {
		c.line("")
		c.line("\t@preflight {")
		c.line("\t\tmethod OPTIONS")
		c.line("\t\theader Origin %s", origin)
		c.line("\t\theader Access-Control-Request-Method *")
		c.line("\t}")
		c.line("\theader @preflight {")
		c.line("\t\tAccess-Control-Allow-Methods %s", inQuotes(commas(g.methods)))
		c.when(len(g.headers) > 0, "\t\tAccess-Control-Allow-Headers %s", inQuotes(commas(g.headers)))
		c.when(g.maxAge > 0, "\t\tAccess-Control-Max-Age %d", g.maxAge)
		c.line("\t}")
	}
	c.line("")
	c.line("\troute { # keeps the order in which it is written")
	c.when(g.preflight, "\t\trespond @preflight 204 # before authentication: a preflight carries no credentials")
	c.line("\t\t# … basic_auth, forward_auth and the rest, as they are …")
	c.line("\t\treverse_proxy %s {", placeholder)
	c.line("\t\t\theader_down -Access-Control-* # said twice, it is refused")
	c.line("\t\t}")
	c.line("\t}")
	c.line("}")
	return Mend{
		Target: ForCaddy, Title: "Caddy in front of the server", Language: "caddy", File: "Caddyfile: the site of the API", Code: c.String(),
		Note: sentences(
			"Each reverse_proxy of the site needs the header_down line.",
			only(g.preflight, othersNote), g.pageNote()),
	}
}

func (g *grant) express() Mend {
	var c snippet
	c.line(`const cors = require("cors"); // npm install cors`)
	c.line("")
	c.line("// Before every route, and before authentication: a preflight carries no credentials.")
	c.line("app.use(")
	c.line("  cors({")
	c.line("    origin: [%s], // a list: a plain string would be sent to every origin", inQuotes(g.origin.String()))
	c.line("    methods: [%s],", stringList(g.methods))
	if len(g.headers) > 0 {
		c.line("    allowedHeaders: [%s],", stringList(g.headers))
	} else {
		c.line("    allowedHeaders: [], // without it, whatever a preflight asks for is allowed")
	}
	c.when(len(g.expose) > 0, "    exposedHeaders: [%s],", stringList(g.expose))
	c.when(g.credentials, "    credentials: true,")
	c.when(g.maxAge > 0 && g.preflight, "    maxAge: %d,", g.maxAge)
	c.line("  }),")
	c.line(");")
	return Mend{
		Target: ForExpress, Title: "Express", Language: "javascript", File: "app.js: after const app = express()", Code: c.String(),
		Note: sentences(
			"It answers preflights for every path, so no app.options is needed.",
			"Remove every other res.header(\"Access-Control-…\").",
			othersNote, g.pageNote()),
	}
}

func (g *grant) spring() Mend {
	var c snippet
	for _, class := range []string{
		"java.util.List", "",
		"org.springframework.context.annotation.Bean",
		"org.springframework.context.annotation.Configuration",
		"org.springframework.security.config.Customizer",
		"org.springframework.security.config.annotation.web.builders.HttpSecurity",
		"org.springframework.security.web.SecurityFilterChain",
		"org.springframework.web.cors.CorsConfiguration",
		"org.springframework.web.cors.CorsConfigurationSource",
		"org.springframework.web.cors.UrlBasedCorsConfigurationSource",
	} {
		if class == "" {
			c.line("")
			continue
		}
		c.line("import %s;", class)
	}
	c.line("")
	c.line("@Configuration")
	c.line("public class CorsConfig {")
	c.line("    // Spring Security finds the bean by this name.")
	c.line("    @Bean")
	c.line("    CorsConfigurationSource corsConfigurationSource() {")
	c.line("        CorsConfiguration page = new CorsConfiguration();")
	c.line("        page.setAllowedOrigins(List.of(%s));", inQuotes(g.origin.String()))
	c.line("        page.setAllowedMethods(List.of(%s));", stringList(g.methods))
	c.when(len(g.headers) > 0, "        page.setAllowedHeaders(List.of(%s));", stringList(g.headers))
	c.when(len(g.expose) > 0, "        page.setExposedHeaders(List.of(%s));", stringList(g.expose))
	c.when(g.credentials, "        page.setAllowCredentials(true);")
	c.when(g.maxAge > 0 && g.preflight, "        page.setMaxAge(%dL);", g.maxAge)
	c.line("        UrlBasedCorsConfigurationSource source = new UrlBasedCorsConfigurationSource();")
	c.line(`        source.registerCorsConfiguration("/**", page);`)
	c.line("        return source;")
	c.line("    }")
	c.line("")
	c.line("    // If you have a SecurityFilterChain, only add the line .cors(…) to it. It puts the CORS")
	c.line("    // filter before authentication: a preflight carries no credentials.")
	c.line("    @Bean")
	c.line("    SecurityFilterChain api(HttpSecurity http) throws Exception {")
	c.line("        return http")
	c.line("            .cors(Customizer.withDefaults())")
	c.line("            .authorizeHttpRequests(requests -> requests.anyRequest().authenticated())")
	c.line("            .build();")
	c.line("    }")
	c.line("}")
	return Mend{
		Target: ForSpring, Title: "Spring Boot, with Spring Security", Language: "java", File: "CorsConfig.java, beside the application's class", Code: c.String(),
		Note: sentences(
			"Without Spring Security, return new CorsFilter(source) from a bean of type CorsFilter, and leave the chain out.",
			"Remove @CrossOrigin and addCorsMappings elsewhere.",
			"Spring refuses what is not listed also when it is no preflight.",
			othersNote, g.pageNote()),
	}
}

func (g *grant) fastAPI() Mend {
	var c snippet
	c.line("from fastapi.middleware.cors import CORSMiddleware")
	c.line("")
	c.line("# After every other add_middleware: the last one added is the outermost, and a")
	c.line("# preflight, which carries no credentials, must not reach authentication.")
	c.line("app.add_middleware(")
	c.line("    CORSMiddleware,")
	c.line("    allow_origins=[%s],", inQuotes(g.origin.String()))
	c.line("    allow_methods=[%s],", stringList(g.methods))
	c.when(len(g.headers) > 0, "    allow_headers=[%s],", stringList(g.headers))
	c.when(len(g.expose) > 0, "    expose_headers=[%s],", stringList(g.expose))
	c.when(g.credentials, "    allow_credentials=True,")
	c.when(g.maxAge > 0 && g.preflight, "    max_age=%d,", g.maxAge)
	c.line(")")
	return Mend{
		Target: ForFastAPI, Title: "FastAPI", Language: "python", File: "main.py: after app = FastAPI() and all other middleware", Code: c.String(),
		Note: sentences(
			"The 500 of an exception that nobody handles is made outside all middleware, so the page sees a CORS error in its place; app = CORSMiddleware(app, …) with the same arguments, as the last line of the file, is outside that too.",
			"Vary: Origin comes only with answers to this origin: if answers may be cached, send it with all of them.",
			othersNote, g.pageNote()),
	}
}
