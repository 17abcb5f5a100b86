-- Copies samples of the history to those of an event: the first one of each interval after the newest that is there.
-- Repeated calls, by any number of controllers, copy each sample once.
-- KEYS: the history; the samples of the event.
-- ARGV: the first and the last time to copy; the interval; the most samples copied in one call; the most samples kept;
-- how long they are kept. All times are in seconds.
-- If there are more than are kept, because the interval has become longer, one for each interval remains.
-- Returns 1 if there may be more to copy, else 0.
local HISTORY, SAMPLES = KEYS[1], KEYS[2]
local from, to, interval, most_copied, most_kept, keep_seconds = unpack(ARGV)
from, to, interval, most_copied = tonumber(from), tonumber(to), tonumber(interval), tonumber(most_copied)

local function score(key, rank)
  return tonumber(redis.call('ZRANGE', key, rank, rank, 'WITHSCORES')[2])
end

local function interval_of(at)
  return math.floor(at / interval)
end

local function thin()
  local samples = redis.call('ZRANGE', SAMPLES, 0, -1, 'WITHSCORES')
  local last
  for i = 1, #samples, 2 do
    local current = interval_of(samples[i + 1])
    if current == last then
      redis.call('ZREM', SAMPLES, samples[i])
    end
    last = current
  end
end

local oldest = score(HISTORY, 0)
if not oldest then
  return 0
end
local newest = score(SAMPLES, -1)
local next_interval = math.max(interval_of(oldest), newest and interval_of(newest) + 1 or interval_of(from))
local copied = 0
for current = next_interval, interval_of(to) do
  if copied == most_copied then
    break
  end
  local first, last = math.max(from, current * interval), math.min(to, (current + 1) * interval - 1)
  local found = redis.call('ZRANGEBYSCORE', HISTORY, first, last, 'WITHSCORES', 'LIMIT', 0, 1)
  if found[1] then
    redis.call('ZADD', SAMPLES, found[2], found[1])
    copied = copied + 1
  end
end
if copied > 0 then
  if redis.call('ZCARD', SAMPLES) > tonumber(most_kept) then
    thin()
  end
  redis.call('EXPIRE', SAMPLES, keep_seconds)
end
return copied == most_copied and 1 or 0
