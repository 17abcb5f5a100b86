-- Takes or renews a controller's lease on a room; may run twice.
-- KEYS: lease; state.
-- ARGV: controller; length of the lease in ms.
-- Returns whether the controller has the lease, as 1 or 0, and the state.
local LEASE, STATE = unpack(KEYS)
local controller, lease_ms = unpack(ARGV)

local taken = redis.call('SET', LEASE, controller, 'NX', 'PX', lease_ms) or redis.call('GET', LEASE) == controller
if taken then
  redis.call('PEXPIRE', LEASE, lease_ms)
end
return { taken and 1 or 0, redis.call('GET', STATE) or '' }
