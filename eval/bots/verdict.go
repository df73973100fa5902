package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// record is what moat's admin listener tells of a decision.
type record struct {
	Step   string `json:"step"`
	Code   string `json:"code"`
	Client string `json:"client"`
	Path   string `json:"path"`
	Where  string `json:"where"`
	Got    string `json:"got"`
}

// verdict is what moat came to think of a visit.
type verdict struct {
	// score is the highest of its requests, by the signals that count where nobody says otherwise,
	// and all by those too that are only reported then.
	score, all int
	// points are the highest of each signal.
	points map[string]int
	// others are the codes of the steps that are not this guard's, and would have refused the visit too.
	others map[string]bool
}

var admin = http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}

// verdict reads the decisions about a visitor.
func (s *site) verdict(ctx context.Context, client string) (verdict, error) {
	v := verdict{points: map[string]int{}, others: map[string]bool{}}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+s.admin+"/decisions?n=4000", nil)
	if err != nil {
		return v, err
	}
	res, err := admin.Do(r)
	if err != nil {
		return v, err
	}
	defer res.Body.Close() //nolint:errcheck // read to its end
	var all []record
	if err = json.NewDecoder(res.Body).Decode(&all); err != nil {
		return v, err
	}
	for _, rec := range all {
		switch {
		case rec.Client != client:
		case rec.Step != "bot":
			v.others[rec.Code] = true
		default:
			if err = v.add(&rec); err != nil {
				return v, err
			}
		}
	}
	return v, nil
}

var pointsForm = regexp.MustCompile(`\b([a-z_0-9]+) \+(\d+) \(`)

// add counts a record of the form that docs/guards/bot.md has: "headers +40 (why); only reported: ja4 +40 (why)".
func (v *verdict) add(rec *record) error {
	counted, reported, _ := strings.Cut(rec.Got, "only reported: ")
	var sums [2]int
	for i, text := range []string{counted, reported} {
		for _, p := range pointsForm.FindAllStringSubmatch(text, -1) {
			points, err := strconv.Atoi(p[2])
			if err != nil {
				return err
			}
			v.points[p[1]] = max(v.points[p[1]], points)
			sums[i] += points
		}
	}
	// The record is cut where it is long, and its sum is not.
	if told := strings.TrimPrefix(rec.Where, "score "); told != strconv.Itoa(sums[0]) && told != strconv.Itoa(sums[0]+sums[1]) {
		return fmt.Errorf("moat's record tells %q, which is not the sum of its signals: %s", rec.Where, rec.Got)
	}
	v.score, v.all = max(v.score, sums[0]), max(v.all, sums[0]+sums[1])
	return nil
}

// outcome is what became of a tool's visits.
type outcome struct {
	visits, failed int
	fault          error // the last one
	missing        error
	scores, all    []int // of the visits, as in verdict
	// seenBy counts the visits in which a signal gave points, and most is the most that it gave.
	seenBy, most map[string]int
	others       map[string]int
	took         time.Duration
	cost         cost
}

func (o *outcome) count(v verdict) {
	if o.seenBy == nil {
		o.seenBy, o.most, o.others = map[string]int{}, map[string]int{}, map[string]int{}
	}
	o.visits++
	o.scores, o.all = append(o.scores, v.score), append(o.all, v.all)
	for name, points := range v.points {
		o.seenBy[name]++
		o.most[name] = max(o.most[name], points)
	}
	for code := range v.others {
		o.others[code]++
	}
}

// reaching is how many have that score or more.
func reaching(scores []int, least int) (n int) {
	for _, s := range scores {
		if s >= least {
			n++
		}
	}
	return n
}

// median of the scores; 0 of none.
func median(scores []int) int {
	if len(scores) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(scores))[len(scores)/2]
}
