package valkey

import (
	"crypto/sha1" //nolint:gosec // it is how the server names a script.
	_ "embed"
	"encoding/hex"
	"strconv"
	"sync/atomic"

	client "github.com/valkey-io/valkey-go"
)

// script is a Lua script. The server names it by its SHA-1, and has to be sent the text
// when it does not know the name: after a start, a failover or SCRIPT FLUSH.
type script struct{ text, sha string }

func newScript(text string) *script {
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see above.
	return &script{text, hex.EncodeToString(sum[:])}
}

var (
	//go:embed take.lua
	takeText string
	//go:embed giveback.lua
	giveBackText string
	//go:embed announce.lua
	announceText string
	//go:embed forget.lua
	forgetText string
	//go:embed remembers.lua
	remembersText string
	//go:embed lineage.lua
	lineageText string
	//go:embed reserve.lua
	reserveText string
	//go:embed use.lua
	useText string
	//go:embed once.lua
	onceText string
	//go:embed sessions.lua
	sessionsText string
	//go:embed putsession.lua
	putSessionText string
	//go:embed getsession.lua
	getSessionText string
	//go:embed touchsession.lua
	touchSessionText string
	//go:embed replacesession.lua
	replaceSessionText string
	//go:embed deletesession.lua
	deleteSessionText string
	//go:embed deletesessions.lua
	deleteSessionsText string
	//go:embed budgets.lua
	budgetsText string
	//go:embed reservebudgets.lua
	reserveBudgetsText string
	//go:embed settlebudgets.lua
	settleBudgetsText string
	//go:embed usebudget.lua
	useBudgetText string
	//go:embed resetbudget.lua
	resetBudgetText string
	//go:embed stopbudgets.lua
	stopBudgetsText string

	take     = newScript(takeText)
	giveBack = newScript(giveBackText)
	announce = newScript(announceText)
	forget   = newScript(forgetText)

	askLineage   = newScript(remembersText + lineageText)
	reserveRange = newScript(remembersText + reserveText)
	markUse      = newScript(remembersText + useText)
	markOnce     = newScript(remembersText + onceText)

	putSession     = newScript(sessionsText + putSessionText)
	getSession     = newScript(getSessionText)
	touchSession   = newScript(sessionsText + touchSessionText)
	replaceSession = newScript(replaceSessionText)
	deleteSession  = newScript(sessionsText + deleteSessionText)
	deleteSessions = newScript(sessionsText + deleteSessionsText)

	reserveBudgets = newScript(budgetsText + reserveBudgetsText)
	settleBudgets  = newScript(budgetsText + settleBudgetsText)
	useBudget      = newScript(useBudgetText)
	resetBudget    = newScript(budgetsText + resetBudgetText)
	stopBudgets    = newScript(stopBudgetsText)
)

// call is one execution of a script.
type call struct {
	script *script
	keys   []string
	args   []string
	// givesBack says that the call is to be made even if nobody waits for it any more, but
	// never twice: others are harsher for it, this one would be too generous.
	givesBack bool
	// wanted says that the call is to be made even if nobody waits for it any more.
	wanted bool
	// resent says that a connection was lost while the call was made, and that it has been
	// made again: it may have found what it did itself.
	resent bool
	// words says that the answer is numbers and, perhaps, a word.
	words bool

	// state goes from waiting to one of the others, once.
	state atomic.Uint32
	done  chan struct{} // has the answer, in reply and err
	reply []int64
	word  string
	err   error
}

const (
	waiting uint32 = iota
	answered
	abandoned
)

func newCall(s *script, keys, args []string) *call {
	return &call{script: s, keys: keys, args: args, done: make(chan struct{}, 1)}
}

// read reads the server's answer.
func (c *call) read(r client.ValkeyResult) ([]int64, error) {
	if !c.words {
		return r.AsIntSlice()
	}
	parts, err := r.ToArray()
	if err != nil {
		return nil, err
	}
	var numbers []int64
	for _, part := range parts {
		if n, err := part.ToInt64(); err == nil {
			numbers = append(numbers, n)
		} else if c.word, err = part.ToString(); err != nil {
			return nil, err
		}
	}
	return numbers, nil
}

func (c *call) answer(reply []int64, err error) {
	if !c.state.CompareAndSwap(waiting, answered) {
		return
	}
	c.reply, c.err = reply, err
	c.done <- struct{}{}
}

// abandon reports whether nobody will look at the answer any more; if not, it is there.
func (c *call) abandon() bool { return c.state.CompareAndSwap(waiting, abandoned) }

func (c *call) unwanted() bool { return !c.givesBack && !c.wanted && c.state.Load() == abandoned }

// command is the call as the server gets it.
func (c *call) command(b client.Builder, withText bool) client.Completed {
	name, what := "EVALSHA", c.script.sha
	if withText {
		name, what = "EVAL", c.script.text
	}
	return b.Arbitrary(name, what, strconv.Itoa(len(c.keys))).Keys(c.keys...).Args(c.args...).Build()
}

// arguments writes numbers and words into one string, and hands out its parts.
type arguments struct {
	buf  []byte
	ends []int
}

func (a *arguments) number(n int64) {
	a.buf = strconv.AppendInt(a.buf, n, 10)
	a.ends = append(a.ends, len(a.buf))
}

func (a *arguments) word(s string) {
	a.buf = append(a.buf, s...)
	a.ends = append(a.ends, len(a.buf))
}

func (a *arguments) strings() []string {
	all, from := string(a.buf), 0
	parts := make([]string, len(a.ends))
	for i, end := range a.ends {
		parts[i], from = all[from:end], end
	}
	return parts
}
