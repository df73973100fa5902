-- Tells who shares the store, and counts them.
--
-- KEYS: the set of the processes. ARGV: the one that speaks, and for how many
-- microseconds its word holds; 0 takes it back.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local key, ttl = KEYS[1], tonumber(ARGV[2])
redis.call('ZREMRANGEBYSCORE', key, '-inf', string.format('%.0f', now))
if ttl > 0 then
	redis.call('ZADD', key, string.format('%.0f', now + ttl), ARGV[1])
	redis.call('PEXPIRE', key, string.format('%.0f', ttl / 1000))
else
	redis.call('ZREM', key, ARGV[1])
end
return {redis.call('ZCARD', key)}
