-- Marks something once.
--
-- KEYS: the lineage, the mark. ARGV: which lineage it must be; for how many milliseconds
-- the mark is to be remembered.
-- Answers with 1 if it was the first, with 0 if not, and with -1 if the lineage is not
-- remembered.
--
-- A mark that is not there is a new one, or one that was evicted for lack of memory. So if
-- anything has been evicted since the lineage began, that ends here.

if not remembers(KEYS[1], ARGV[1]) then
	return {-1}
end
if redis.call('HGET', KEYS[1], 'evicted') ~= says('stats', 'evicted_keys') then
	redis.call('DEL', KEYS[1])
	return {-1}
end
if redis.call('SET', KEYS[2], '', 'NX', 'PX', ARGV[2]) then
	return {1}
end
return {0}
