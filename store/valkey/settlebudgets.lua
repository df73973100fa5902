-- Changes accounts. Those of a period that has been forgotten are not made anew.
--
-- KEYS: for each change the accounts, and those that have used most.
-- ARGV: for each: who, the unit to find those by who have used most, what is added.

for i = 1, #KEYS, 2 do
	local a = (i - 1) * 3 + 1
	if redis.call('EXISTS', KEYS[i]) == 1 then
		add(KEYS[i], KEYS[i + 1], ARGV[a], four(a + 2), tonumber(ARGV[a + 1]))
		if redis.call('TTL', KEYS[i + 1]) == -1 then
			redis.call('PEXPIRE', KEYS[i + 1], math.max(redis.call('PTTL', KEYS[i]), 1))
		end
	end
end
return {}
