-- Decides one Take on the server's clock: all demands, or none.
--
-- KEYS: the key of each demand.
-- ARGV: "1" to only look; the number of processes that share the room left for leases;
-- then for each demand: the full burst in µs, the emission interval, what the request
-- costs in µs, "n" if it counts only for a new first key, "f" if it cannot be refused,
-- "nf" or "", and for how many requests more it would like room.
-- Answers with the server's time, then for each demand the debt that it found and for how
-- many requests more it took room. The rest follows from Limit.Take.
--
-- Every number here is a whole one below 2^53, which a Lua number holds exactly; %.0f
-- writes it so, where tostring would round to 14 digits.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local was, tat, cut, reply = {}, {}, {}, {now}
local ok, new = true, true

for i = 1, #KEYS do
	local key, a = KEYS[i], i * 5 - 2
	local full, charge, kind = tonumber(ARGV[a]), tonumber(ARGV[a + 2]), ARGV[a + 3]
	local at = tat[key]
	if not at then
		at = tonumber(redis.call('GET', key) or now)
		if not at or not (at > now) then
			at = now
		end
		was[key], tat[key] = at, at
	end
	if i == 1 then
		new = at == now
	end
	reply[i * 2], reply[i * 2 + 1] = math.min(at - now, full), 0
	if new or (kind ~= 'n' and kind ~= 'nf') then
		-- Farther ahead than a full burst is only what a clock that was set back or a
		-- limit that was narrowed left behind. It is written down even if the request is
		-- refused, or it would count as a full burst the next time, and the next time.
		if at > now + full then
			if at == was[key] then
				cut[key] = now + full
			end
			at = now + full
		end
		if at - now + charge <= full then
			at = at + charge
		elseif kind == 'f' or kind == 'nf' then
			at = now + full
		else
			ok = false
		end
		tat[key] = at
	end
end

if ARGV[1] == '1' then
	return reply
end
if ok then
	for i = 1, #KEYS do
		local key, a = KEYS[i], i * 5 - 2
		local more = tonumber(ARGV[a + 4])
		if more > 0 then
			local full, interval = tonumber(ARGV[a]), tonumber(ARGV[a + 1])
			more = math.max(math.min(more, math.floor((full - (tat[key] - now)) / interval / tonumber(ARGV[2]))), 0)
			tat[key], reply[i * 2 + 1] = tat[key] + more * interval, more
		end
	end
else
	tat = cut
end
for key, at in pairs(tat) do
	if at > now and at ~= was[key] then
		redis.call('SET', key, string.format('%.0f', at), 'PX', string.format('%.0f', math.ceil((at - now) / 1000)))
	end
end
return reply
