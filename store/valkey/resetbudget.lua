-- Forgets an account, or all if none is named.
--
-- KEYS: the accounts, those that have used most. ARGV: who, or "".
-- Answers with whether there was something to forget.

if ARGV[1] == '' then
	redis.call('DEL', KEYS[2])
	return {redis.call('DEL', KEYS[1])}
end
local text = redis.call('HGET', KEYS[1], ARGV[1])
if not text then
	return {0}
end
local a = amount(text)
add(KEYS[1], KEYS[2], ARGV[1], {-a[1], -a[2], -a[3], -a[4]}, 1)
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
return {1}
