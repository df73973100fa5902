// Package valkey keeps the debts of ratelimit.Limits in Valkey or Redis, for processes that
// share limits.
//
//	user moat-standalone on >PASSWORD resetchannels resetkeys ~moat:* -@all +eval +evalsha +time +get +set +del +zadd +zrem +zremrangebyscore +zcard +pexpire
//	user moat-cluster on >PASSWORD resetchannels resetkeys ~moat:* -@all +eval +evalsha +time +get +set +del +zadd +zrem +zremrangebyscore +zcard +pexpire +cluster|slots +cluster|shards +asking
//	user moat-sentinel on >PASSWORD resetchannels resetkeys -@all +sentinel|get-master-addr-by-name
package valkey
