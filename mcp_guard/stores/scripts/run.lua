-- Carries out operations of a store, in order, each atomic, in one call. See mcp_guard/stores/valkey/encoding.py.
--
-- KEYS    the keys of the operations, one after the other, as many for each as the table below says
-- ARGV    for each operation its letter and then its arguments
--
--   letter    keys              arguments                                  result
--   G get     value             -                                          value
--   P put     value             how, ttl, new value, expected value        1 or 0
--   T take    value             -                                          value
--   D delete  value             -                                          1 or 0
--   R renew   value             prefix, ttl                                value
--   S spend   bucket, ...       count, then burst, period, cost of each    levels
--   U unspend bucket, ...       count, then burst, period, cost of each    1
--   E enter   set               member, ttl, limit                         1 or 0
--   Y stay    set               member, ttl                                1 or 0
--   L leave   set               member                                     1 or 0
--   M members set               -                                          members
--   C claim   epoch, claim      ttl, instant of issue                      1 or 0
--   A announce -                topic, message                             1
--
--   A ttl is in milliseconds, at least 1. A period is in microseconds, an instant in microseconds since 1970. `how` is
--   `a` (always), `n` (only if absent) or `e` (only if equal to the expected value).
--
-- Returns one string: the results, separated by blanks, a line feed, and the bytes that the results speak of.
--   1, 0      true, false
--   -         absent
--   x         absent, because what is there is none of ours: of another type, or longer than a value may be
--   v<n>      a value: the next n bytes
--   m<n>:...  members: the next n bytes are the first one, and so on; m alone when there is none
--   l<n>      n levels: the next 25 bytes of each, `<bi8dd`: allowed, remaining, seconds to retry after, to be full
--   e<CLASS>  the operation was refused and changed nothing: the first word of the server's error
-- An error READONLY, instead of any result, says that the server is a replica: nothing was written.
--
-- Needs a server with the functions of Redis 7.0. Time is the server's own.

local MAX_VALUE = 65536
local EPOCH_TTL = 86400000
local ROUNDING = 0.001

local payload = {}
local instant

local function now()
  if not instant then
    local time = redis.call('TIME')
    instant = time[1] * 1000000 + time[2]
  end
  return instant
end

-- The reply, or nil and whether the key holds another type. Other errors are raised.
local function typed(...)
  local reply = redis.pcall(...)
  if type(reply) == 'table' and reply.err then
    if string.find(reply.err, '^WRONGTYPE') then
      return nil, true
    end
    error(reply)
  end
  return reply or nil, false
end

local function own(value, foreign)
  if value and #value > MAX_VALUE then
    return nil, true
  end
  return value, foreign
end

local function read(key)
  return own(typed('GET', key))
end

local function shown(value, foreign)
  if value then
    payload[#payload + 1] = value
    return 'v' .. #value
  end
  return foreign and 'x' or '-'
end

local function get(k)
  return shown(read(KEYS[k]))
end

local function put(k, a)
  local key, how, ttl, value = KEYS[k], ARGV[a], ARGV[a + 1], ARGV[a + 2]
  if how == 'n' then
    if redis.call('SET', key, value, 'PX', ttl, 'NX') then
      return '1'
    end
    local _, foreign = read(key)
    if not foreign then
      return '0'
    end
  elseif how == 'e' and read(key) ~= ARGV[a + 3] then
    return '0'
  end
  redis.call('SET', key, value, 'PX', ttl)
  return '1'
end

local function take(k)
  local value, foreign = own(typed('GETDEL', KEYS[k]))
  if foreign then
    redis.call('DEL', KEYS[k])
  end
  return shown(value, foreign)
end

local function delete(k)
  return tostring(redis.call('DEL', KEYS[k]))
end

local function renew(k, a)
  local value, foreign = read(KEYS[k])
  local prefix = ARGV[a]
  if value and string.sub(value, 1, #prefix) == prefix then
    redis.call('PEXPIRE', KEYS[k], ARGV[a + 1])
  end
  return shown(value, foreign)
end

-- A bucket is the instant when it is full again, as two doubles, so that no unit is lost to rounding: whole
-- microseconds since 1970, and what was added since. Answers both, and the distance of their sum from now, at least 0.
-- One that is further away than a full bucket can be was written before the clock was set back: it is empty, no more.
local function bucket(key, interval, period)
  local held = typed('GET', key)
  if held and #held == 16 then
    local base, added = struct.unpack('<dd', held)
    local lag = base - now() + added
    if lag > period + interval then
      return now(), period, period
    elseif lag > 0 then
      return base, added, lag
    end
  end
  return now(), 0, 0
end

local function level(held)
  local wait = held.finish - held.period
  local allowed = wait <= held.interval * ROUNDING
  local used = allowed and held.finish or held.lag
  local left = math.max(0, math.floor((held.period - used) / held.interval + ROUNDING))
  local retry = allowed and 0 or math.ceil(wait)
  return allowed, struct.pack('<bi8dd', allowed and 1 or 0, left, retry / 1e6, math.ceil(used) / 1e6)
end

local function held_of(k, a)
  local burst, period, cost = tonumber(ARGV[a]), tonumber(ARGV[a + 1]), tonumber(ARGV[a + 2])
  local interval = period / burst
  local base, added, lag = bucket(KEYS[k], interval, period)
  local taken = interval * cost
  return { key = KEYS[k], period = period, interval = interval, base = base, added = added, lag = lag, taken = taken,
           finish = lag + taken }
end

local function spend(k, a)
  local buckets, levels, fits = {}, {}, true
  for n = 1, tonumber(ARGV[a]) do
    local held = held_of(k + n - 1, a + 3 * n - 2)
    local allowed
    allowed, levels[n] = level(held)
    fits = fits and allowed
    buckets[n] = held
  end
  if fits then
    for _, held in ipairs(buckets) do
      local value = struct.pack('<dd', held.base, held.added + held.taken)
      redis.call('SET', held.key, value, 'PX', math.max(1, math.ceil(held.finish / 1000)))
    end
  end
  payload[#payload + 1] = table.concat(levels)
  return 'l' .. #levels
end

local function unspend(k, a)
  for n = 1, tonumber(ARGV[a]) do
    local held = held_of(k + n - 1, a + 3 * n - 2)
    local lag = held.lag - held.taken
    if lag > 0 then
      local value = struct.pack('<dd', held.base, held.added - held.taken)
      redis.call('SET', held.key, value, 'PX', math.max(1, math.ceil(lag / 1000)))
    else
      redis.call('DEL', held.key)
    end
  end
  return '1'
end

-- Whether the member is inside. A set of another type is none of ours and makes room for one of ours.
local function inside(key, member)
  local expires, foreign = typed('ZSCORE', key, member)
  if foreign then
    redis.call('DEL', key)
  end
  return expires and tonumber(expires) > now()
end

local function admit(key, member, ttl)
  redis.call('ZADD', key, now() + ttl * 1000, member)
  if redis.call('PTTL', key) < ttl then
    redis.call('PEXPIRE', key, ttl)
  end
  return '1'
end

local function enter(k, a)
  local key, member = KEYS[k], ARGV[a]
  if not inside(key, member) then
    redis.call('ZREMRANGEBYSCORE', key, '-inf', now())
    if redis.call('ZCARD', key) >= tonumber(ARGV[a + 2]) then
      return '0'
    end
  end
  return admit(key, member, tonumber(ARGV[a + 1]))
end

local function stay(k, a)
  if not inside(KEYS[k], ARGV[a]) then
    return '0'
  end
  return admit(KEYS[k], ARGV[a], tonumber(ARGV[a + 1]))
end

local function leave(k, a)
  local was_inside = inside(KEYS[k], ARGV[a])
  redis.call('ZREM', KEYS[k], ARGV[a])
  return was_inside and '1' or '0'
end

local function members(k)
  local lengths = {}
  for n, member in ipairs(typed('ZRANGEBYSCORE', KEYS[k], '(' .. string.format('%.0f', now()), '+inf') or {}) do
    payload[#payload + 1] = member
    lengths[n] = #member
  end
  return 'm' .. table.concat(lengths, ':')
end

-- The epoch is the instant when the store's memory began; see epoch.lua. Without one, memory begins now.
local function claim(k, a)
  local record = typed('GETEX', KEYS[k], 'PX', EPOCH_TTL)
  local epoch = record and tonumber(string.match(record, '^%d+'))
  if not epoch then
    epoch = now()
    redis.call('SET', KEYS[k], string.format('%.0f ', epoch), 'PX', EPOCH_TTL)
  end
  if tonumber(ARGV[a + 1]) < epoch then
    return '0'
  end
  return redis.call('SET', KEYS[k + 1], '', 'PX', ARGV[a], 'NX') and '1' or '0'
end

local function announce(_, a)
  redis.call('PUBLISH', ARGV[a], ARGV[a + 1])
  return '1'
end

-- For each letter: what carries it out, its number of keys and its number of arguments.
local HOW = {
  G = { get, 1, 0 }, P = { put, 1, 4 }, T = { take, 1, 0 }, D = { delete, 1, 0 }, R = { renew, 1, 2 },
  S = { spend }, U = { unspend }, E = { enter, 1, 3 }, Y = { stay, 1, 2 }, L = { leave, 1, 1 },
  M = { members, 1, 0 }, C = { claim, 2, 2 }, A = { announce, 0, 2 },
}
local NEEDS_ROOM = { P = true, S = true, E = true, C = true }

-- A write of nothing, before all others. A replica refuses it, so that nothing is read from one. A full server refuses
-- it too, while it would let a script go on that has written something.
local full = false
if KEYS[1] then
  local reply = redis.pcall('SETRANGE', KEYS[1], 0, '')
  local message = type(reply) == 'table' and reply.err or ''
  if string.find(message, '^READONLY') then
    return redis.error_reply(message)
  end
  full = string.find(message, '^OOM') ~= nil
end

local results = {}
local k, a = 1, 1
while ARGV[a] do
  local letter = ARGV[a]
  local how = HOW[letter]
  a = a + 1
  local result = 'eOOM'
  if not (full and NEEDS_ROOM[letter]) then
    local done
    done, result = pcall(how[1], k, a)
    if not done then
      local message = type(result) == 'table' and result.err or tostring(result)
      local forbidden = string.find(message, 'ACL failure in script', 1, true)
      result = 'e' .. (forbidden and 'NOPERM' or string.match(message, '^%u+') or 'ERR')
    end
  end
  results[#results + 1] = result
  if how[2] then
    k, a = k + how[2], a + how[3]
  else
    k, a = k + tonumber(ARGV[a]), a + 1 + 3 * tonumber(ARGV[a])
  end
end
return table.concat(results, ' ') .. '\n' .. table.concat(payload)
