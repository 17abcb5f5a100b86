-- Reverts what attempt.lua counted for a successful login: everything in the most specific counter, but only this
-- attempt in the others, so that users can't clear their attempts at other names by logging in themselves.
-- KEYS: the counters, the most specific first.
redis.call('DEL', KEYS[1])
for counter = 2, #KEYS do
  if redis.call('EXISTS', KEYS[counter]) == 1 then
    redis.call('HINCRBY', KEYS[counter], 'tries', -1)
    redis.call('HDEL', KEYS[counter], 'until')
  end
end
return 0
