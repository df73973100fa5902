// Package keyfile keeps API keys in one file: a bbolt database, which a process that is
// killed in the middle of a write leaves as it was before.
//
// bbolt locks its file for as long as it is open, and moat key must work while moat run
// runs. So the file is open only for the moment of reading or writing. A [File] looks every
// second whether the keys have changed: a revocation holds within about a second.
//
// # Who is trusted
//
// Whoever can write the file can make a key that opens everything. It is made with mode
// 0600, and one that others than its owner can write is refused. Whoever can only read it
// learns owners, notes and scopes, and no key.
//
// # When the file cannot be read
//
// Open fails. A File that could once be read keeps the keys that it had, and says so: a file
// that is missing for a while takes nobody's service away. It then does not hear of
// revocations either.
//
// When a key was last used is written at most once a minute, and when the File is closed. A
// process that is killed loses that, a minute of it, and nothing else.
package keyfile
