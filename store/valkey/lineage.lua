-- Says which lineage of tickets the server remembers, and begins another one if it may
-- have forgotten something.
--
-- KEYS: the lineage. ARGV: the one to begin, in hexadecimal digits; a number below which
-- it gives out none.
-- Answers with its age in µs, and with its bytes, as four numbers.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local id, since = unpack(redis.call('HMGET', KEYS[1], 'id', 'since'))
if not id or not remembers(KEYS[1], id) then
	id, since = ARGV[1], now
	redis.call('DEL', KEYS[1])
	redis.call('HSET', KEYS[1], 'id', id, 'home', home(), 'next', ARGV[2],
		'since', string.format('%.0f', now), 'evicted', says('stats', 'evicted_keys'))
end
local reply = {math.max(now - since, 0)}
for i = 1, 32, 8 do
	reply[#reply + 1] = tonumber(string.sub(id, i, i + 7), 16)
end
return reply
