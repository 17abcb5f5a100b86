-- Adds a sample to the history unless there is one of the same time.
-- KEYS: the samples.
-- ARGV: the sample's time; the sample; the most samples kept; the time before which samples are dropped.
-- Returns 1, or 0 if there is one already.
local SAMPLES = KEYS[1]
local at, sample, most, oldest = unpack(ARGV)

if redis.call('ZCOUNT', SAMPLES, at, at) > 0 then
  return 0
end
redis.call('ZADD', SAMPLES, at, sample)
redis.call('ZREMRANGEBYSCORE', SAMPLES, '-inf', '(' .. oldest)
redis.call('ZREMRANGEBYRANK', SAMPLES, 0, -1 - tonumber(most))
return 1
