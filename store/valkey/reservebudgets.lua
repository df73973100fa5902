-- Decides one Reserve on the server's clock: all demands, or none.
--
-- KEYS: the switch; then for each demand the accounts, and those that have used most.
-- ARGV: how many accounts there are at most, and the name that those share who come later; then for each
-- demand: who; the first second of the period, that of the next, and when it may be forgotten; "f" if it takes what it asks for in any
-- case; the unit to find those by who have used most; the cap; what is asked for.
-- Answers with 1 if there was room, 0 if not, 2 if the switch is on, 3 if the period is another one; the server's
-- time; then for each demand what has been used, the unit that lacks, and whether the account is the shared one.

local now = tonumber(redis.call('TIME')[1])
if redis.call('EXISTS', KEYS[1]) == 1 then
	return {2, now}
end
local reply, room, force, who = {1, now}, true, true, {}
local demands = (#KEYS - 1) / 2
for i = 1, demands do
	local a, hash = 3 + (i - 1) * 14, KEYS[i * 2]
	if now < tonumber(ARGV[a + 1]) or now >= tonumber(ARGV[a + 2]) then
		return {3, now}
	end
	local name, shared = ARGV[a], 0
	local text = redis.call('HGET', hash, name)
	if not text and name ~= '' and redis.call('HLEN', hash) > tonumber(ARGV[1]) then
		name, shared = ARGV[2], 1
		text = redis.call('HGET', hash, name)
	end
	who[i] = name
	local used, cap, take, lacks = amount(text), four(a + 6), four(a + 10), 0
	for u = 1, 4 do
		local left = cap[u] - used[u]
		if lacks == 0 and cap[u] > 0 and (take[u] > 0 or take[1] > 0) and (left <= 0 or take[u] > left) then
			lacks = u
		end
	end
	room = room and lacks == 0
	force = force and ARGV[a + 4] == 'f'
	local at = 3 + (i - 1) * 6
	reply[at], reply[at + 1], reply[at + 2], reply[at + 3], reply[at + 4], reply[at + 5] = used[1], used[2], used[3], used[4], lacks, shared
end
if not room then
	reply[1] = 0
	if not force then
		return reply
	end
end
for i = 1, demands do
	local a, hash, top = 3 + (i - 1) * 14, KEYS[i * 2], KEYS[i * 2 + 1]
	local used = add(hash, top, who[i], four(a + 10), tonumber(ARGV[a + 5]))
	if redis.call('TTL', hash) < 0 or redis.call('TTL', top) == -1 then
		redis.call('EXPIREAT', hash, ARGV[a + 3])
		redis.call('EXPIREAT', top, ARGV[a + 3])
	end
	local at = 3 + (i - 1) * 6
	reply[at], reply[at + 1], reply[at + 2], reply[at + 3] = used[1], used[2], used[3], used[4]
end
return reply
