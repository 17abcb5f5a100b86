-- Takes back what attempt.lua counted for a try that succeeded: all of the user's name, and this one of the address,
-- so that nobody with a password of their own gets rid of what they tried with other names.
--
-- KEYS: the name's, the address's.

redis.call('DEL', KEYS[1])
if redis.call('EXISTS', KEYS[2]) == 1 then
  redis.call('HINCRBY', KEYS[2], 'tries', -1)
  redis.call('HDEL', KEYS[2], 'until')
end
return 0
