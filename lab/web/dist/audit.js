import{i as e,o as t,t as n}from"./jsxRuntime.js";import{r,t as i}from"./lanes.js";import{c as a}from"./lab.js";import{n as o}from"./tools.js";import{t as s}from"./reason.js";var c=[{title:`nginx: everybody's origin`,text:`location /api/ {
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
`},{title:`nginx: a pattern without an end`,text:`map $http_origin $cors_origin {
    default "";
    "~^https://app\\.example\\.com" $http_origin;
}
server {
    add_header Access-Control-Allow-Origin $cors_origin always;
    add_header Access-Control-Allow-Credentials true always;
}
`},{title:`Express: cors()`,text:`app.use(cors({
  origin: ["https://app.example.com", /\\.example\\.com$/, "null"],
  credentials: true,
}));
`},{title:`Apache: a star`,text:`Header set Access-Control-Allow-Origin "*"
Header set Access-Control-Allow-Credentials "true"
`},{title:`moat.yaml: guards off`,text:`version: 1
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
`}],l={"moat.yaml":`a moat.yaml`,nginx:`nginx`,express:`Express`,apache:`Apache`,headers:`header lines of an answer`},u=[[`danger`,`Dangerous`,`a page that should not can do or read what is the user's`],[`warning`,`To be looked at`,`it may be meant so; if not, here is the change`],[`open`,`Nothing here is against it`,`other defences have to be`],[`fine`,`As it should be`,``]];function d(r){let[i,o]=e(``),[s,l]=e(),[u,d]=e(``),[p,m]=e(!1),h=async e=>{m(!0),d(``),l(void 0);try{l(await a(`audit`,{text:e}))}catch(e){d(e instanceof Error?e.message:String(e))}finally{m(!1)}};return n(t,{children:[n(`form`,{class:`stack`,onSubmit:e=>{e.preventDefault(),h(i)},children:[n(`label`,{for:`audit-text`,children:`Your configuration`}),n(`textarea`,{id:`audit-text`,rows:12,spellcheck:!1,autocapitalize:`off`,value:i,maxLength:2e5,onInput:e=>o(e.currentTarget.value),placeholder:`add_header Access-Control-Allow-Origin $http_origin always;
add_header Access-Control-Allow-Credentials true always;`,onKeyDown:e=>{e.key===`Enter`&&(e.ctrlKey||e.metaKey)&&h(i)}}),n(`p`,{class:`actions`,children:[n(`button`,{type:`submit`,class:`main`,id:`audit`,disabled:p||!i.trim(),children:p?`Asking…`:`Audit it`}),n(`span`,{children:`It is read by this lab alone. No upstream, file or variable that it names is looked at.`})]}),n(`p`,{class:`samples`,children:[n(`span`,{children:`Or try:`}),c.map(e=>n(`button`,{type:`button`,class:`quiet`,onClick:()=>{o(e.text),h(e.text)},children:e.title},e.title))]})]}),n(`p`,{class:`fault`,role:`alert`,children:u}),s&&n(f,{audit:s,onGo:e=>{let t=document.getElementById(`audit-text`),n=i.split(`
`).slice(0,e-1).join(`
`).length+ +(e>1),r=i.indexOf(`
`,n);t.focus(),t.setSelectionRange(n,r<0?i.length:r)}})]})}function f({audit:e,onGo:a}){let s=e.questions??[],c=e=>s.filter(t=>t.level===e).length,d=e.faults??[];return n(`div`,{class:`audit-result`,children:[n(`section`,{"aria-labelledby":`audit-title`,children:[n(`h2`,{id:`audit-title`,children:d.length>0?`${d.length} ${d.length>1?`faults`:`fault`}: moat would not start with it`:c(`danger`)>0?`${c(`danger`)} ${c(`danger`)>1?`dangerous answers`:`dangerous answer`}`:`Nothing dangerous was found`}),n(`p`,{class:`soft`,role:`status`,children:[`Read as `,l[e.kind]??e.kind,`. `,e.page&&n(t,{children:[`The page that is taken for yours is `,n(`code`,{children:e.page}),`. `]}),s.length>0&&`${s.length} questions were put to it.`]}),n(o,{faults:d,onGo:a}),(e.warnings??[]).length>0&&n(`div`,{class:`warn`,children:n(o,{faults:e.warnings??[],onGo:a})}),(e.notes??[]).length>0&&n(`ul`,{class:`notes`,children:e.notes.map(e=>n(`li`,{children:e},e))})]}),e.mend&&c(`danger`)+c(`warning`)>0&&n(`section`,{"aria-label":`The change`,children:[n(`figure`,{class:`code`,children:[n(`figcaption`,{children:[`Grants this to your page, and to nobody else: `,e.mend.title,`, `,e.mend.file,` `,n(r,{text:e.mend.code})]}),n(`pre`,{tabIndex:0,children:n(`code`,{children:e.mend.code})})]}),e.mend.note&&n(`p`,{class:`soft`,children:e.mend.note})]}),u.map(([e,t,r])=>c(e)>0&&n(`section`,{"aria-label":t,children:[n(`h3`,{class:`level-head ${e}`,children:[t,` `,n(`small`,{children:r})]}),n(`ul`,{class:`answers`,children:s.filter(t=>t.level===e).map((e,t)=>n(p,{q:e},t))})]},e)),(e.headers??[]).length>0&&n(`section`,{class:`columns`,"aria-label":`The headers`,children:e.headers.map(e=>n(`figure`,{class:`rules`,children:[n(`figcaption`,{children:[e.title,`: what your page is answered`]}),n(`div`,{class:`rule`,children:e.headers?.length?n(i,{headers:e.headers}):n(`p`,{children:`no headers`})})]},e.title))})]})}function p({q:e}){let t=!e.executed&&!e.readable;return n(`li`,{class:`answer ${e.level}`,children:[n(`p`,{class:`answer-title`,children:n(`b`,{children:e.title})}),n(`p`,{class:`answer-what`,children:[n(`code`,{children:e.from}),` `,n(`code`,{children:e.request})]}),n(`div`,{class:`tags`,children:[n(`span`,{class:e.executed===e.attack?`no`:`yes`,children:e.executed?`the handler runs`:`the handler does not run`}),n(`span`,{class:e.readable===e.attack?`no`:`yes`,children:e.readable?`the answer can be read`:t?`nothing can be read`:`the answer cannot be read`}),e.reason&&n(s,{code:e.reason})]}),n(`p`,{children:e.why}),e.change&&n(`p`,{class:`change`,children:[n(`b`,{children:`Change:`}),` `,e.change]}),e.explanation?.failure&&!e.attack&&n(`p`,{class:`soft`,children:e.explanation.failure.console??e.explanation.failure.text})]})}export{d as default};