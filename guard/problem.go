package guard

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// ReasonsURL is where a reason code is explained; a problem's type is this plus its code.
const ReasonsURL = "https://github.com/moat-gateway/moat/blob/main/docs/reasons.md#"

// problems holds each reason's RFC 9457 document without its last brace, made once.
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
		all[i] = b[: len(b)-1 : len(b)-1]
	}
	return all
}()

// The values of the headers that every refusal has. Nobody sees the request after a
// refusal, and their capacity leaves nothing to append to, so sharing them is safe.
var (
	problemType = []string{"application/problem+json"}
	noStore     = []string{"no-store"}
	nosniff     = []string{"nosniff"}
)

// Refuse answers with the reason's status and an application/problem+json document
// (RFC 9457) that has its code, and the decision's id if there is one. It tells the
// client nothing of the policy and nothing of what the request held.
// id must be plain ASCII letters and digits.
func Refuse(w http.ResponseWriter, r Reason, id string) {
	h := w.Header()
	h["Content-Type"], h["Cache-Control"], h["X-Content-Type-Options"] = problemType, noStore, nosniff
	head := problems[r]
	if head == nil {
		panic("guard: Refuse: " + r.String() + " refuses nothing")
	}
	if id == "" {
		w.WriteHeader(r.Status())
		w.Write(head)
		w.Write(brace)
		return
	}
	b := make([]byte, 0, len(head)+len(id)+16)
	b = append(b, head...)
	b = append(b, `,"id":"`...)
	b = append(b, id...)
	b = append(b, `"}`...)
	h["Content-Length"] = []string{strconv.Itoa(len(b))}
	w.WriteHeader(r.Status())
	w.Write(b)
}

var brace = []byte("}")
