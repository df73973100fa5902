-- Reserves a range of 1,024 ticket numbers for one process.
--
-- KEYS: the lineage. ARGV: which one it must be; for how many milliseconds the uses of the
-- range are to be remembered.
-- Answers with the index of the range, or -1 if the lineage is not remembered.
--
-- The key of the range has all its bits from the start, so it is there for as long as the
-- server remembers them: one that is not there marks nothing. Its name is not among KEYS,
-- because it is only known now; it is in the same slot.

if not remembers(KEYS[1], ARGV[1]) then
	return {-1}
end
local index = redis.call('HINCRBY', KEYS[1], 'next', 1)
local range = KEYS[1] .. ':' .. ARGV[1] .. ':' .. string.format('%.0f', index)
redis.call('SETBIT', range, 32767, 0)
redis.call('PEXPIRE', range, ARGV[2])
return {index}
