-- Asks for leave to try to log in, and counts the try against the user's name and the address it comes from. A try
-- counts from its beginning: a thousand at once are no more than one after the other.
--
-- KEYS: one for each that is counted. ARGV: the time in ms, or "" for the server's; how long a count is kept in ms; then
-- for each key how many tries are free, and the first and the longest pause in ms after those, doubled each time.
-- Gives the ms until the next try is allowed, or 0: this one is.

local now = tonumber(ARGV[1])
if not now then
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
end

local wait = 0
for i, key in ipairs(KEYS) do
  local left = (tonumber(redis.call('HGET', key, 'until') or 0)) - now
  -- A clock that was set back makes nobody wait for longer than ever.
  wait = math.max(wait, math.min(left, tonumber(ARGV[3 * i + 2])))
end
if wait > 0 then
  return math.ceil(wait)
end

for i, key in ipairs(KEYS) do
  local over = redis.call('HINCRBY', key, 'tries', 1) - tonumber(ARGV[3 * i])
  if over > 0 then
    local pause = math.min(tonumber(ARGV[3 * i + 1]) * 2 ^ (over - 1), tonumber(ARGV[3 * i + 2]))
    redis.call('HSET', key, 'until', string.format('%.0f', now + pause))
  end
  redis.call('PEXPIRE', key, ARGV[2])
end
return 0
