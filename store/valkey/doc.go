// Package valkey keeps the debts of ratelimit.Limits in Valkey or Redis, for processes that
// share limits.
//
// Without it each process counts for itself, and a client that reaches all of them gets its
// limit from each. With it a limit holds for all together, at the price of one round trip
// for a request; or for one of n, see Leases.
//
// # Who is trusted
//
// The server, and all that may write to it: who may write can forget a client's debt, or
// make one up that locks the client out for as long as its limit takes to forget. Give moat
// a user and a prefix of its own, see Permissions, and use TLS where others share the
// network. Key names hold the addresses of clients in clear, until their debt is forgotten:
// seconds to days, as the limits say. The server's clock counts, and no other.
//
// # When the server cannot be asked
//
// Take returns ErrUnavailable, and the Guard does what its Policy says: by default each
// process counts for itself and admits its share, by Nodes. That is neither open, as an
// attacker would like it who can disturb the server, nor closed, which would make the API
// depend on one more program.
//
// No Take lasts longer than the timeout, whatever the server, the network or the resolver
// do: callers wait for a channel and a timer, and for nothing else. After three failures in
// a row, or one connection that cannot be made, Takes fail at once, and one call tries
// whether the server is there again, soon after and then every second. Neither queues nor
// goroutines grow meanwhile. Open does not wait for the server either, beyond a second.
//
// A Take that was not answered in time may have been charged all the same; that client then
// waits a little longer. A server that comes back empty has forgotten all debts: clients may
// have one more burst. The same holds, for what it had not got yet, when a replica takes
// over. Nothing has to be persisted. A server that runs out of memory should forget the
// least debts first, which is maxmemory-policy volatile-ttl; with noeviction it refuses to
// be written to, and is then not available.
//
// # What is decided
//
// All demands of a Take in one script, all or none, exactly as Limit.Take has it, on the
// server's clock. A clock that is set back, or a limit that is made narrower, refuses
// nobody for longer than the limit itself does.
//
// In a cluster a script reaches only keys of one slot. The networks of one client share
// one: the tag of its keys is its /24 or /48. A limit that everybody shares lies elsewhere.
// Such a Take asks slot after slot, and gives back what it was given if a later one refuses.
// All or nothing is then true in the end, not at every moment: others may be refused because
// of a charge that is just about to be given back, and if the connection is lost in between
// it stays charged until the limit has forgotten it. Nothing is ever admitted beyond a
// limit. In Standalone and Sentinel mode none of this happens.
//
// # Leases
//
// A Demand with Lease n takes room for up to n requests at once, and the process admits the
// others without asking. In any span of time a limit then admits no more than
//
//	burst + time × rate + processes × lease
//
// because a process holds one lease of a key at most. It takes no more of the room than the
// share of one process, and what it does not use within the time in which the limit forgets
// a full burst (at least a second, at most a minute) is lost to the client.
//
// Refusals are remembered until the server said that there would be room, but no longer than
// 10 seconds, in which a key that another process Resets stays refused here. So a client that
// does not stop costs the server nothing.
//
// Leases and refusals are known of 16,384 keys at most, in about 7 MB. Beyond that clients
// get no lease, so each of their requests is asked for, and refusals are forgotten, so they
// are asked for again. A flood of strangers never takes room from a lease.
//
// # Servers and permissions
//
// Valkey 7.2 or later, or Redis 6.2 or later. The user needs, with "moat" for the prefix:
//
//	user moat-standalone on >PASSWORD resetchannels resetkeys ~moat:* -@all +eval +evalsha +time +get +set +del +zadd +zrem +zremrangebyscore +zcard +pexpire
//	user moat-cluster on >PASSWORD resetchannels resetkeys ~moat:* -@all +eval +evalsha +time +get +set +del +zadd +zrem +zremrangebyscore +zcard +pexpire +cluster|slots +cluster|shards +asking
//	user moat-sentinel on >PASSWORD resetchannels resetkeys -@all +sentinel|get-master-addr-by-name
//
// The first is also for the servers that Sentinels watch over, the last for the Sentinels.
package valkey
