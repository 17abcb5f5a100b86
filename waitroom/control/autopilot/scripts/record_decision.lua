-- Stores the autopilot's state and perhaps a decision; may run twice.
--
-- KEYS: lease, state, decisions. ARGV: the controller, the state, a decision to keep or '', how many are kept.
-- Returns 1, or 0 where another controller has the lease.
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[2], ARGV[2])
if ARGV[3] ~= '' and redis.call('LINDEX', KEYS[3], 0) ~= ARGV[3] then
  redis.call('LPUSH', KEYS[3], ARGV[3])
  redis.call('LTRIM', KEYS[3], 0, ARGV[4] - 1)
end
return 1
