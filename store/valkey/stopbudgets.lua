-- Turns the switch.
--
-- KEYS: the switch. ARGV: "on", "off", or "" to only look.
-- Answers with since when it is on, or 0. It does not expire.

if ARGV[1] == 'on' then
	redis.call('SET', KEYS[1], redis.call('TIME')[1], 'NX')
elseif ARGV[1] == 'off' then
	redis.call('DEL', KEYS[1])
end
return {tonumber(redis.call('GET', KEYS[1]) or 0)}
