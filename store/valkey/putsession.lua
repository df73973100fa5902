-- Puts a new entry.
--
-- KEYS: the entry, its indexes. ARGV: the content; when it expires, in Unix milliseconds of the
-- caller's clock; for how many milliseconds that is; how many entries an index has at most.
-- Answers with 1, or with 0 if there is one already.

if redis.call('EXISTS', KEYS[1]) == 1 then
	return {0}
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for i = 2, #KEYS do
	local index = KEYS[i]
	if redis.call('ZCARD', index) >= tonumber(ARGV[4]) then
		for _, entry in ipairs(redis.call('ZRANGE', index, 0, -1)) do
			if redis.call('EXISTS', entry) == 0 then
				redis.call('ZREM', index, entry) -- it has expired
			end
		end
		local over = redis.call('ZCARD', index) - tonumber(ARGV[4])
		if over >= 0 then
			for _, entry in ipairs(redis.call('ZRANGE', index, 0, over)) do
				forget(entry)
			end
		end
	end
	redis.call('ZADD', index, now, KEYS[1])
	keep(index, ARGV[3])
end
redis.call('HSET', KEYS[1], 'sealed', ARGV[1], 'expires', ARGV[2], 'indexes', table.concat(KEYS, '\n', 2))
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return {1}
