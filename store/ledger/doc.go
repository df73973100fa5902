// Package ledger keeps what has been spent of budgets in this process and in one file: a bbolt
// database, which a process that is killed in the middle of a write leaves as it was before.
//
// # What a crash costs
//
// The file says at least what has been spent, at every moment. So that not each request waits for a
// disk it says more: what one account has used is written a thirty-second of the cap ahead, and
// written anew, for all who wait together, when that is used up. A process that is killed and
// started again counts what the file says. It gives nothing back, and costs each account at most that
// thirty-second, and what calls had set aside in the second before. A process that is stopped
// leaves the exact figures.
//
// # When the file cannot be written
//
// It fails closed. Calls pass as far as the file already says that they have been made; then nobody
// spends, until it can be written again. A file that is damaged, foreign, locked by another process,
// or that others can write is refused at the start, and one that was removed or replaced while it is in use
// is not written to any more: a ledger that begins at zero because its file is gone would be no cap.
// Only a path where there is nothing makes a new one.
//
// # Bounds
//
// A budget has budget.MaxAccounts accounts in a period; whoever comes later shares one. An account takes some
// 200 bytes of memory and 170 of the file (400 when all are written anew by Close), and is forgotten one period after its own ended, at most a day.
// A clock that is set back by less than that finds the old counts.
//
// # Who is trusted
//
// Whoever can write the file can spend. It is made with mode 0600. Whoever can read it learns the
// addresses and names of those who spent.
package ledger
