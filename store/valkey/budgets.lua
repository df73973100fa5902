-- What the scripts about budgets share. They are put in front of each.
--
-- A budget's accounts of one period are the fields of one hash, each "requests bytes tokens money";
-- the field "" is what all have used together. Beside it stands a sorted set of those that have used most.
-- All keys are in one slot, so that a script reaches all budgets of a call, and the switch.
--
-- Every number here is a whole one below 2^53, which a Lua number holds exactly; %.0f writes it so.

local function amount(text)
	local a = {0, 0, 0, 0}
	if text then
		local i = 1
		for n in string.gmatch(text, '%d+') do
			a[i], i = tonumber(n), i + 1
		end
	end
	return a
end

local function put(hash, who, a)
	redis.call('HSET', hash, who, string.format('%.0f %.0f %.0f %.0f', a[1], a[2], a[3], a[4]))
end

-- add changes an account, which does not fall below 0, and what all have used; by is the unit that those
-- who have used most are found by.
local function add(hash, top, who, n, by)
	local a, all = amount(redis.call('HGET', hash, who)), nil
	if who ~= '' then
		all = amount(redis.call('HGET', hash, ''))
	end
	for i = 1, 4 do
		local after = math.min(math.max(a[i] + n[i], 0), 2^53)
		if all then
			all[i] = math.min(math.max(all[i] + after - a[i], 0), 2^53)
		end
		a[i] = after
	end
	put(hash, who, a)
	if all then
		put(hash, '', all)
		redis.call('ZADD', top, string.format('%.0f', a[by]), who)
		redis.call('ZREMRANGEBYRANK', top, 0, -129)
	end
	return a
end

local function four(from)
	return {tonumber(ARGV[from]), tonumber(ARGV[from + 1]), tonumber(ARGV[from + 2]), tonumber(ARGV[from + 3])}
end
