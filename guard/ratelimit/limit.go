package ratelimit

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// Limit is a rate in the words people use: Count requests Per time, of which up to Burst
// may come at once. Within any span of time no more than Burst + span/Per*Count are
// admitted. The zero Limit admits nothing.
//
// A Burst of 0 stands for Count: all of a minute's requests may come in its first second.
type Limit struct {
	Count int
	Per   time.Duration
	Burst int
}

const (
	// MaxHorizon is the longest time that a limit may take to forget a full burst. Stores
	// keep no state for longer. What lasts longer than a month is a quota, not a rate.
	MaxHorizon = 31 * 24 * time.Hour
	// MaxPerSecond is the highest rate. State is kept in whole microseconds.
	MaxPerSecond = 1_000_000
)

// limitWords is the form of a limit: "60/m burst 20", "5/10s".
var limitWords = regexp.MustCompile(`^([0-9]{1,9})\s*/\s*([0-9]{0,5})(s|m|h|d)(?:,?\s+burst\s+([0-9]{1,9}))?$`)

// looseWords finds the limit in how else it could be written: "60 per minute", "5/sec".
var looseWords = regexp.MustCompile(`^\s*([0-9]{1,9})\s*(?:req(?:uests)?|r)?\s*(?:/|per|a|an)\s*([0-9]{0,6})\s*(s|m|h|d)(?:ec|econds?|in|inutes?|ours?|r|ays?)?((?:,?\s+burst\s+[0-9]{1,9})?)\s*$`)

var unitOf = map[string]time.Duration{"s": time.Second, "m": time.Minute, "h": time.Hour, "d": 24 * time.Hour}

// ParseLimit reads a limit as people write it: "60/m", "60/m burst 20", "5/10s burst 1".
// The units are s, m, h and d.
func ParseLimit(s string) (Limit, error) {
	m := limitWords.FindStringSubmatch(strings.TrimSpace(s))
	if m == nil {
		reason := `not a limit; write requests per time, such as "60/m", "60/m burst 20" or "5/10s"`
		if m = looseWords.FindStringSubmatch(strings.ToLower(s)); m != nil {
			reason = fmt.Sprintf("not a limit; did you mean %q?", strings.TrimSpace(m[1]+"/"+m[2]+m[3]+m[4]))
		}
		return Limit{}, errors.New(reason)
	}
	var l Limit
	l.Count, _ = strconv.Atoi(m[1]) // at most nine digits
	times := 1
	if m[2] != "" {
		times, _ = strconv.Atoi(m[2])
	}
	l.Per = time.Duration(times) * unitOf[m[3]]
	if m[4] != "" {
		l.Burst, _ = strconv.Atoi(m[4])
		if l.Burst == 0 {
			return Limit{}, errors.New("a burst of 0 admits nothing; write burst 1 for requests one by one")
		}
	}
	return l, l.Check()
}

// Check says what is wrong with a limit, if anything is.
func (l Limit) Check() error {
	switch {
	case l.Count < 1:
		return errors.New("admits nothing; the count must be at least 1")
	case l.Per < time.Microsecond:
		return errors.New("the time must be at least 1µs")
	case l.Burst < 0:
		return errors.New("the burst is negative")
	case l.tooFast():
		return fmt.Errorf("faster than %d requests a second, which nothing here can count", MaxPerSecond)
	case l.horizon() > float64(MaxHorizon):
		return fmt.Errorf("takes %s to forget a full burst, and no debt is kept for longer than %.0f days; choose a smaller burst or a shorter time", days(l), MaxHorizon.Hours()/24)
	}
	return nil
}

// tooFast reports whether the rate is above MaxPerSecond.
func (l Limit) tooFast() bool {
	return float64(l.Count)*float64(time.Second) > MaxPerSecond*float64(l.Per)
}

// horizon is the time that a full burst takes to be forgotten, in nanoseconds.
func (l Limit) horizon() float64 { return float64(l.Per) / float64(l.Count) * float64(l.burst()) }

func days(l Limit) string {
	return fmt.Sprintf("%.0f days", math.Ceil(l.horizon()/(24*float64(time.Hour))))
}

// String writes a limit as ParseLimit reads it.
func (l Limit) String() string {
	per := l.Per.String()
	for _, u := range []string{"d", "h", "m", "s"} {
		if n := l.Per / unitOf[u]; l.Per%unitOf[u] == 0 && n > 0 {
			per = u
			if n > 1 {
				per = strconv.Itoa(int(n)) + u
			}
			break
		}
	}
	s := fmt.Sprintf("%d/%s", l.Count, per)
	if l.Burst != 0 && l.Burst != l.Count {
		s += fmt.Sprintf(" burst %d", l.Burst)
	}
	return s
}

// burst is how many requests may come at once.
func (l Limit) burst() int64 {
	if l.Burst == 0 {
		return int64(l.Count)
	}
	return int64(l.Burst)
}

// Admits reports whether a request of that cost can ever be allowed.
func (l Limit) Admits(cost int) bool { return int64(cost) <= l.burst() }

// Covers reports whether l refuses whatever other refuses, so that other has no effect
// beside it.
func (l Limit) Covers(other Limit) bool {
	return l.burst() <= other.burst() && l.interval() >= other.interval()
}

// interval is the emission interval: the time that one request costs, in microseconds. It
// is rounded up, so a limit that does not divide evenly is never exceeded, and stricter by
// less than a microsecond for each request: by 0.2 % at 3,000 a second, by up to a half
// near MaxPerSecond.
func (l Limit) interval() int64 {
	per := int64(l.Per / time.Microsecond)
	if l.Count < 1 {
		return int64(MaxHorizon / time.Microsecond)
	}
	return max((per+int64(l.Count)-1)/int64(l.Count), 1)
}

// Result is what a limit makes of a request.
type Result struct {
	// Allowed says that the limit has room for the request.
	Allowed bool
	// New says that the key had no debt: it has not been seen, or all is forgotten.
	New bool
	// Remaining is for how many requests of cost 1 there is room afterwards.
	Remaining int
	// Retry is how long a request of the same cost has to wait to be allowed; 0 if it was,
	// and NeverAllowed if it costs more than the burst.
	Retry time.Duration
	// Reset is how long it takes until all debt is forgotten.
	Reset time.Duration
}

// NeverAllowed is the Retry of a request that costs more than its limit ever allows.
const NeverAllowed time.Duration = math.MaxInt64

// Take is GCRA, the generic cell rate algorithm (ITU-T I.371), as a pure function. State
// is a theoretical arrival time (TAT): the time, in microseconds of the clock that now is
// read from, at which the key's debt will be forgotten; a TAT that is not after now is no
// debt at all. Take returns the TAT after a request of that cost, and what to do with the
// request. One that is refused changes nothing and costs nothing.
//
// A TAT farther ahead than a full burst, which only a clock that was set back or a limit
// that was narrowed can leave behind, counts as a full burst, and that is the TAT that is
// returned. A Store keeps it, though the request is refused: then nothing but the client's
// own requests can refuse it for longer than the limit takes to forget a burst.
func (l Limit) Take(tat, now int64, cost int) (int64, Result) {
	interval := l.interval()
	full := interval * l.burst()
	cost = int(min(max(int64(cost), 0), l.burst()+1)) // more than can be is as good as too much
	tat = min(max(tat, now), now+full)
	r := Result{New: tat == now}
	debt := tat - now + interval*int64(cost)
	if r.Allowed = debt <= full; r.Allowed {
		tat = now + debt
	} else if r.Retry = time.Duration(debt-full) * time.Microsecond; !l.Admits(cost) {
		r.Retry = NeverAllowed
	}
	r.Remaining = int((full - (tat - now)) / interval)
	r.Reset = time.Duration(tat-now) * time.Microsecond
	return tat, r
}

// Charge is Take for what cannot be refused any more: a cost beyond the room that is left
// takes all of that room.
func (l Limit) Charge(tat, now int64, cost int) (int64, Result) {
	next, r := l.Take(tat, now, cost)
	if !r.Allowed {
		next = now + l.interval()*l.burst()
		r.Allowed, r.Retry, r.Remaining, r.Reset = true, 0, 0, time.Duration(next-now)*time.Microsecond
	}
	return next, r
}

// Times returns the limit for n times as many requests.
func (l Limit) Times(n int) Limit {
	l.Burst = int(l.burst()) * n
	l.Count *= n
	return l
}

// Share returns the limit for one of n that have to share it without speaking to each
// other. The burst is at least 1, or nothing could ever pass.
func (l Limit) Share(n int) Limit {
	l.Burst = max(int(l.burst())/n, 1)
	l.Per *= time.Duration(n)
	return l
}
