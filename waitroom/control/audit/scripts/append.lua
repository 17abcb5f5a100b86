-- Appends an entry to the audit log if the newest entry is still the one that it was chained to; otherwise another
-- controller was first, and the caller chains it again.
-- KEYS: the entries; the state of the list.
-- ARGV: the hash that the entry was chained to; its own hash; the entry; the most entries kept; idempotency key; the
-- hash before the first entry; and, for an event that several controllers may find, its source and its number there.
-- Returns the entry's id, nil if another entry was first, or '' if the event has been written before.
local ENTRIES, STATE = unpack(KEYS)
local chained_to, hash, entry, most, idempotency_key, first_hash, source, number = unpack(ARGV)
local DROPPED_PER_CALL = 100

local written = 'written:' .. source
if source ~= '' and tonumber(redis.call('HGET', STATE, written) or 0) >= tonumber(number) then
  return ''
end
if redis.call('HGET', STATE, 'word') == idempotency_key then
  return redis.call('HGET', STATE, 'id')
end
if (redis.call('HGET', STATE, 'hash') or first_hash) ~= chained_to then
  return false
end
local id = redis.call('XADD', ENTRIES, '*', 'entry', entry, 'previous', chained_to, 'hash', hash)
redis.call('HSET', STATE, 'hash', hash, 'id', id, 'word', idempotency_key)
redis.call('HINCRBY', STATE, 'added', 1)
if source ~= '' then
  redis.call('HSET', STATE, written, number)
end
local excess = math.min(redis.call('XLEN', ENTRIES) - tonumber(most), DROPPED_PER_CALL)
if excess > 0 then
  for _, dropped in ipairs(redis.call('XRANGE', ENTRIES, '-', '+', 'COUNT', excess)) do
    local dropped_id, fields = dropped[1], dropped[2]
    redis.call('HSET', STATE, 'trimmed_hash', fields[6])
    redis.call('XDEL', ENTRIES, dropped_id)
  end
  redis.call('HINCRBY', STATE, 'trimmed', excess)
end
return id
