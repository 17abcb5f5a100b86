-- Takes or prolongs a controller's lease on a room; may run twice.
--
-- KEYS: lease, state. ARGV: the controller, the lease's length in ms. Returns whether it has the lease, and the state.
local mine = redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) or redis.call('GET', KEYS[1]) == ARGV[1]
if mine then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return { mine and 1 or 0, redis.call('GET', KEYS[2]) or '' }
