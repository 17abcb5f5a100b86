-- Reverts what attempt.lua counted for a successful login: everything for the user's name, but only this attempt for
-- the address, so that users can't clear their attempts at other names by logging in themselves.
-- KEYS: the name's counter; the address's.
local NAME, ADDRESS = unpack(KEYS)

redis.call('DEL', NAME)
if redis.call('EXISTS', ADDRESS) == 1 then
  redis.call('HINCRBY', ADDRESS, 'tries', -1)
  redis.call('HDEL', ADDRESS, 'until')
end
return 0
