// Package ratelimit holds clients to limits: so many requests in a time, so many at once.
//
// Limits protect what stands behind the gate from being used more than was meant, by
// anybody: they are the one protection that needs to know nothing of the client. Without
// identity a client is its address. An address is no person: many people share one, and
// one person with a /48 of IPv6 has 65,536 networks of his own. So a limit by address
// counts the single address (IPv4) or the /64 (IPv6), and the wider networks around it at
// growing multiples. A limit costs an attacker addresses, which is what proxies are sold
// for; it does not recognize him when he comes back with another.
//
// The algorithm is GCRA: see Limit.Take. Debts live in a Store.
package ratelimit
