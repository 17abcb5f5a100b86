-- Counts a login attempt in each of its counters, unless a pause is due. Attempts count from
-- their start: a thousand at the same time are no more than one after the other.
-- KEYS: a counter each.
-- ARGV: the time in ms, '' for the server's; how long a count is kept in ms; then for each counter the attempts without
-- a pause, and the first and the longest pause in ms, which doubles from attempt to attempt.
-- Returns the ms until the next attempt is allowed, or 0 if this one is.
local clock, kept_ms = tonumber(ARGV[1]), ARGV[2]
local FIRST_LIMIT, LIMITS_PER_COUNTER = 3, 3

local function limits(counter)
  local first = FIRST_LIMIT + LIMITS_PER_COUNTER * (counter - 1)
  return tonumber(ARGV[first]), tonumber(ARGV[first + 1]), tonumber(ARGV[first + 2])
end

local now = clock
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local wait = 0
for counter, key in ipairs(KEYS) do
  local _, _, longest_ms = limits(counter)
  local left = tonumber(redis.call('HGET', key, 'until') or 0) - now
  -- A clock that was set back makes nobody wait longer than the longest pause.
  wait = math.max(wait, math.min(left, longest_ms))
end
if wait > 0 then
  return math.ceil(wait)
end

for counter, key in ipairs(KEYS) do
  local free, first_ms, longest_ms = limits(counter)
  local excess = redis.call('HINCRBY', key, 'tries', 1) - free
  if excess > 0 then
    local pause = math.min(first_ms * 2 ^ (excess - 1), longest_ms)
    redis.call('HSET', key, 'until', string.format('%.0f', now + pause))
  end
  redis.call('PEXPIRE', key, kept_ms)
end
return 0
