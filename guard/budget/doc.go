// Package budget holds what visitors, callers, networks and the whole site may spend to a cap
// in each calendar period: requests, bytes, model tokens and money.
//
// A rate limit protects what stands behind the gate from too much at once; a budget protects
// what has to be paid for. The attack is denial of wallet: nothing breaks, and at the end of
// the month there is a bill. So a budget fails closed: what cannot be counted is not spent.
//
// What a call may take at most is set aside before it is made, in all budgets or in none, and
// what it has really taken is put in its place afterwards. A cap is therefore never exceeded by
// calls that say beforehand what they may take, however many come at once. Bytes are known only
// when they have passed: of these a budget can be exceeded by what is under way when it is used up.
//
// The counters are in a Store, which outlives the process. Visitors are chains of tickets, which
// anybody can get a new one of: beside a budget by visitor belongs one by address or network,
// and one of the site, which nobody escapes.
package budget
