-- Takes back what an earlier Take charged.
--
-- KEYS: the keys. ARGV: for each of them what was charged, in µs, and the TAT that the
-- charge was added to.
--
-- Without the charge the debt would have been forgotten at that TAT, and no room grows
-- after that. So the time since then is not given back a second time.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
for i = 1, #KEYS do
	local key = KEYS[i]
	local at = tonumber(redis.call('GET', key) or now)
	if at and at > now then
		at = at - math.max(tonumber(ARGV[i * 2 - 1]) - math.max(now - tonumber(ARGV[i * 2]), 0), 0)
		if at > now then
			redis.call('SET', key, string.format('%.0f', at), 'PX', string.format('%.0f', math.ceil((at - now) / 1000)))
		else
			redis.call('DEL', key)
		end
	end
end
return {}
