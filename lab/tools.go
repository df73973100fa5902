package lab

import (
	"io/fs"
	"net/http"

	"github.com/moat-gateway/moat/guard"
)

// reasonText is what an operator is told about a reason: docs/reasons.md has the same.
type reasonText struct {
	Title string `json:"title,omitempty"`
	Cause string `json:"cause"`
	Fix   string `json:"fix,omitempty"`
}

// serveReasons answers with the text of every reason, by its code.
func serveReasons(w http.ResponseWriter) {
	all := map[string]reasonText{}
	for _, r := range guard.Reasons() {
		all[r.String()] = reasonText{r.Title(), r.Cause(), r.Fix()}
	}
	writeJSON(w, http.StatusOK, all)
}

// serveAnswers answers with the policies of the lessons by name, for the composer.
func serveAnswers(w http.ResponseWriter) {
	named := map[string]Answers{}
	root, err := fs.Sub(lessonFiles, "lessons")
	if err == nil {
		err = readYAML(root, "answers.yaml", &named)
	}
	if err != nil {
		panic(err) // it is embedded, and Lessons has read it
	}
	writeJSON(w, http.StatusOK, named)
}
