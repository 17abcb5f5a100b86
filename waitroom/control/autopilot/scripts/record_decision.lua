-- Stores the autopilot's state and optionally a decision; may run twice.
-- KEYS: lease; state; decisions.
-- ARGV: controller; state; decision, '' for none; the most decisions kept.
-- Returns 1, or 0 if another controller has the lease.
local LEASE, STATE, DECISIONS = unpack(KEYS)
local controller, state, decision, most = unpack(ARGV)

if redis.call('GET', LEASE) ~= controller then
  return 0
end
redis.call('SET', STATE, state)
if decision ~= '' and redis.call('LINDEX', DECISIONS, 0) ~= decision then
  redis.call('LPUSH', DECISIONS, decision)
  redis.call('LTRIM', DECISIONS, 0, most - 1)
end
return 1
