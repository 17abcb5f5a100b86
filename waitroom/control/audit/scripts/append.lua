-- Appends an entry, only if the newest hash is still the one that it was chained to: of two controllers one chains again.
--
-- KEYS: the entries, what is known of the list. ARGV: that hash, the entry's own, the entry, the most entries, a word that
-- no other entry has, the first hash; then, for an event that several controllers find and that is written once, its
-- source and its number there.
-- Returns the entry's id, nothing where another entry came first, or '' where it was written before.
local last = redis.call('HGET', KEYS[2], 'hash') or ARGV[6]
local source = 'written:' .. ARGV[7]
if ARGV[7] ~= '' and tonumber(redis.call('HGET', KEYS[2], source) or 0) >= tonumber(ARGV[8]) then
  return ''
end
if redis.call('HGET', KEYS[2], 'word') == ARGV[5] then
  return redis.call('HGET', KEYS[2], 'id')
end
if last ~= ARGV[1] then
  return false
end
local id = redis.call('XADD', KEYS[1], '*', 'entry', ARGV[3], 'previous', ARGV[1], 'hash', ARGV[2])
redis.call('HSET', KEYS[2], 'hash', ARGV[2], 'id', id, 'word', ARGV[5])
redis.call('HINCRBY', KEYS[2], 'added', 1)
if ARGV[7] ~= '' then
  redis.call('HSET', KEYS[2], source, ARGV[8])
end
local over = math.min(redis.call('XLEN', KEYS[1]) - tonumber(ARGV[4]), 100)
if over > 0 then
  for _, one in ipairs(redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', over)) do
    redis.call('HSET', KEYS[2], 'trimmed_hash', one[2][6])
    redis.call('XDEL', KEYS[1], one[1])
  end
  redis.call('HINCRBY', KEYS[2], 'trimmed', over)
end
return id
