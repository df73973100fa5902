package guard

import (
	"encoding/json"
	"net/http"
)

// ReasonsURL is where a reason code is explained; a problem's type is this plus its code.
const ReasonsURL = "https://github.com/moat-gateway/moat/blob/main/docs/reasons.md#"

// problems holds each reason's RFC 9457 document, made once.
var problems = func() (all [numReasons][]byte) {
	for i := range reasons {
		if reasons[i].status == 0 {
			continue
		}
		b, err := json.Marshal(struct {
			Type   string `json:"type"`
			Title  string `json:"title"`
			Status int    `json:"status"`
			Code   string `json:"code"`
		}{ReasonsURL + reasons[i].code, reasons[i].title, reasons[i].status, reasons[i].code})
		if err != nil {
			panic(err) // four plain fields
		}
		all[i] = b
	}
	return all
}()

// The values of headers that refusals have. Nobody sees the request after a refusal,
// and their capacity leaves nothing to append to, so sharing them is safe.
var (
	problemType = []string{"application/problem+json"}
	noStore     = []string{"no-store"}
)

// Refuse answers with the reason's status and an application/problem+json document
// (RFC 9457) that has its code, and the decision's id if there is one. It tells the
// client nothing of the policy and nothing of what the request held.
// id must be plain ASCII letters and digits. Each of members is one more member of the
// document, such as "wait":5, in JSON.
func Refuse(w http.ResponseWriter, r Reason, id string, members ...string) {
	body, status := problems[r], r.Status()
	if body == nil {
		panic("guard: Refuse: " + r.String() + " refuses nothing")
	}
	h := w.Header()
	// no-store, or a stranger's refusal could be served from a cache in front of us to
	// those who are welcome.
	h["Content-Type"], h["Cache-Control"] = problemType, noStore
	if id != "" || len(members) > 0 {
		b := make([]byte, 0, len(body)+len(id)+len(`,"id":""`))
		b = append(b, body[:len(body)-1]...)
		if id != "" {
			b = append(b, `,"id":"`...)
			b = append(b, id...)
			b = append(b, '"')
		}
		for _, m := range members {
			b = append(append(b, ','), m...)
		}
		body = append(b, '}')
	}
	w.WriteHeader(status)
	w.Write(body)
}
