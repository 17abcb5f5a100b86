-- Adds a sample of the history, once for its time.
--
-- KEYS: the samples. ARGV: the sample's time, the sample, how many are kept, the age from which one is too old.
if redis.call('ZCOUNT', KEYS[1], ARGV[1], ARGV[1]) > 0 then
  return 0
end
redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. ARGV[4])
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[3]))
return 1
