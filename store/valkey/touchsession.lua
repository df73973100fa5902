-- Lets an entry be kept until another time, and its indexes with it.
--
-- KEYS: the entry. ARGV: when it expires, in Unix milliseconds of the caller's clock; for how
-- many milliseconds that is. Answers with 1, or with 0 if there is none.

local indexes = redis.call('HGET', KEYS[1], 'indexes')
if not indexes then
	return {0}
end
redis.call('HSET', KEYS[1], 'expires', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
for index in string.gmatch(indexes, '[^\n]+') do
	keep(index, ARGV[2])
end
return {1}
