// What people paste: each with something to find.
export const samples = [
  {
    title: "nginx: everybody's origin",
    text: `location /api/ {
    add_header Access-Control-Allow-Origin $http_origin always;
    add_header Access-Control-Allow-Credentials true always;
    if ($request_method = OPTIONS) {
        add_header Access-Control-Allow-Origin $http_origin always;
        add_header Access-Control-Allow-Credentials true always;
        add_header Access-Control-Allow-Headers "Content-Type, Authorization" always;
        add_header Access-Control-Allow-Methods "GET, POST, PUT, DELETE" always;
        return 204;
    }
}
`,
  },
  {
    title: "nginx: a pattern without an end",
    text: `map $http_origin $cors_origin {
    default "";
    "~^https://app\\.example\\.com" $http_origin;
}
server {
    add_header Access-Control-Allow-Origin $cors_origin always;
    add_header Access-Control-Allow-Credentials true always;
}
`,
  },
  {
    title: "Express: cors()",
    text: `app.use(cors({
  origin: ["https://app.example.com", /\\.example\\.com$/, "null"],
  credentials: true,
}));
`,
  },
  {
    title: "Apache: a star",
    text: `Header set Access-Control-Allow-Origin "*"
Header set Access-Control-Allow-Credentials "true"
`,
  },
  {
    title: "moat.yaml: guards off",
    text: `version: 1
listen: 127.0.0.1:8080
public_origins: [https://api.example.com]
upstreams:
  app: {url: http://127.0.0.1:3000}
policies:
  pages:
    origins: [https://app.example.com]
    browserless: allow
    modes: {cors: report, cross_site: off}
routes:
  - {match: /, name: all, upstream: app, auth: public, policy: pages}
`,
  },
];
