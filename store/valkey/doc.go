// Package valkey keeps the debts of ratelimit.Limits in Valkey or Redis, for processes that
// share limits; which uses of tickets have been honoured, see Tickets; who is signed in, see Sessions; and what
// has been spent of budgets, see Budgets.
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
// # Tickets
//
// Tickets fails closed, where Takes do not: who can disturb the server could otherwise have
// a ticket honoured twice. A use is honoured if the server says in time that it was the
// first, and at no other time. One that was not answered in time may have been marked, and
// is spent. While the server cannot be asked there are no numbers either; a Guard then
// issues tickets that are good for one process.
//
// A server may also forget without saying so: it is started again, empty or with the data of
// an hour ago; its data are deleted; a replica takes over that lacks the last writes. So a
// lineage is at home in one process of a server, for as long as that is a primary. Every
// script looks, before it marks anything, whether the lineage that it is asked about is the
// one in the server and at home there. If not, the lineage has ended, all its tickets with
// it, and the first process that notices begins another, in one script, so all agree. What a
// primary honours that has been replaced and does not know it is of its own lineage, which is
// unknown to the next one. Ranges of numbers have a key each; if it is gone, evicted or
// expired, nothing of the range is honoured. A process notices a new lineage with the next
// use or mark, or after 2 seconds; what it issues until then is refused.
//
// A lineage also ends without need: when the server gets its first replica, or has had none
// for an hour, and when keys have been evicted and Once is asked. Clients then get new tickets.
//
// What Once marks has no number, so a Guard honours nothing that was issued before the
// lineage began. It has to look at Lineage after it has asked Once: a lineage that began in
// between is then seen. Two things are left to the operator. A primary that has been cut off
// and one that has replaced it could each honour a mark issued after that, until the former
// is noticed: min-replicas-to-write makes the former refuse. And the server forgets marks by
// its clock, which must not be set forward.
//
// A ticket costs 5 bytes, a mark about 150, and a use one round trip; numbers are reserved
// 1,024 at a time, so that a number costs none. Whoever presents a number of a range that is
// reserved but not yet given out is not refused here: only the process that reserved it could
// tell, and only a holder of the secret can make such a ticket. In a cluster all tickets are
// in one slot, and one node does all the work, some 50,000 uses a second.
//
// # Sessions
//
// Sessions too fails closed: without the server nobody is signed in. What it holds is sealed by
// package session, so who can read it has nothing; who can write to it can end sessions, let
// them last up to their lifetime, and have a logout token honoured twice. A server that has lost
// its memory has signed everybody out. One that goes back to an older state, or is replaced by a
// replica that lacks the last writes, may know a session again that was ended just before; a
// process keeps no session of its own that would tell.
//
// Entries expire by the server's clock. A memory limit with an eviction policy ends sessions
// that are in use, and forgets that a logout token was used; with noeviction nobody can sign in
// while it is reached. An entry costs its content and some 400 bytes, an index some 200. Every
// request of a session is a round trip. In a cluster all sessions are in one slot.
//
// # Budgets
//
// Budgets too fails closed: what cannot be counted is not spent. Each process could count alone, as Takes
// do, but money would then be spent as often as there are processes, and whoever can disturb the server
// could have it. All demands of a call are decided in one script, with the kill switch, on the server's clock and in its
// period; all keys are in one slot, so that this holds in a cluster as well, where one node does all the work.
//
// What the server forgets is given back: one that comes back empty or with older data, a replica that takes over and
// lacks the last writes, eviction. Give it appendonly yes and maxmemory-policy noeviction. The accounts of a
// budget and period are one hash, some 120 bytes for each of at most budget.MaxAccounts; beside it stand the 128 that
// have used most. They expire an hour after their period has ended.
//
// A Reserve that was not answered in time, or whose connection was lost, may have been counted, once or twice. What is given back
// by Settle is given back once at most; if that is lost, what was set aside stays spent.
//
// # Servers and permissions
//
// Valkey 7.2 or later, or Redis 6.2 or later. The user needs, with "moat" for the prefix:
//
//	user moat-standalone on >PASSWORD resetchannels resetkeys ~moat:* -@all +eval +evalsha +time +get +set +del +zadd +zrem +zremrangebyscore +zcard +pexpire
//	user moat-cluster on >PASSWORD resetchannels resetkeys ~moat:* -@all +eval +evalsha +time +get +set +del +zadd +zrem +zremrangebyscore +zcard +pexpire +cluster|slots +cluster|shards +asking
//	user moat-sentinel on >PASSWORD resetchannels resetkeys -@all +sentinel|get-master-addr-by-name
//
// To have tickets in the same servers, the first or the second needs in addition:
//
//	user moat-tickets +info +hget +hmget +hset +hincrby +exists +setbit
//
// And to have sessions there:
//
//	user moat-sessions +hget +hmget +hset +exists +pttl +zrange
//
// And to have budgets there:
//
//	user moat-budgets +exists +hget +hset +hdel +hlen +zremrangebyrank +zrevrange +ttl +pttl +expireat
//
// The first is also for the servers that Sentinels watch over, the last for the Sentinels.
package valkey
