-- Tells what has been used of a budget.
--
-- KEYS: the accounts, those that have used most. ARGV: how many of these.
-- Answers with the number of accounts, and in JSON with what all have used and what each of the most has.

local top = {}
for _, who in ipairs(redis.call('ZREVRANGE', KEYS[2], 0, tonumber(ARGV[1]) - 1)) do
	top[#top + 1] = {who, redis.call('HGET', KEYS[1], who) or ''}
end
return {redis.call('HLEN', KEYS[1]), cjson.encode({redis.call('HGET', KEYS[1], '') or '', top})}
