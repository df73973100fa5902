-- Marks one use of a ticket.
--
-- KEYS: the lineage, the range of the ticket's number. ARGV: which lineage it must be, the
-- use's bit in the range.
-- Answers with 1 if it was the first, with 0 if not or if the range is not remembered, and
-- with -1 if the lineage is not.

if not remembers(KEYS[1], ARGV[1]) then
	return {-1}
end
if redis.call('EXISTS', KEYS[2]) == 0 then
	return {0}
end
return {1 - redis.call('SETBIT', KEYS[2], ARGV[2], 1)}
