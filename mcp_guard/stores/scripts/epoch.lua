-- Lets the memory of claims begin anew when another history of writes may have lost some.
--
-- KEYS[1]   where the epoch is kept
-- ARGV[1]   the replication id of the server (INFO replication, master_replid); it changes when a replica is promoted
--           and when a server starts
--
-- The record is the instant when memory began, in microseconds since 1970, a blank, and the replication id under which
-- it began. It lives for a day after its last use.
--
-- Returns 1 when memory begins now, 0 when it goes on.

local EPOCH_TTL = 86400000

local record = redis.pcall('GETEX', KEYS[1], 'PX', EPOCH_TTL)
if type(record) == 'string' and string.match(record, '^%d+ (.*)$') == ARGV[1] then
  return 0
end
local time = redis.call('TIME')
redis.call('SET', KEYS[1], string.format('%.0f %s', time[1] * 1000000 + time[2], ARGV[1]), 'PX', EPOCH_TTL)
return 1
