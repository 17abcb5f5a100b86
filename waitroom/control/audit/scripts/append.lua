-- Appends an entry, if the chain's newest entry is still the one that it was chained to; otherwise another
-- controller was first, and the caller chains it again.
-- KEYS: the entries; the state of the chain; the state of the other chain, whose ids must not be used again.
-- ARGV: the hash that the entry was chained to, and its number in the chain; its own hash; the entry; how many of the
-- oldest entries to drop; idempotency key; the hash before the first entry; the id of the signing key, '' to sign nothing;
-- the signatures of the entry and of the chain's head; the keys that were replaced; and, for an event that several controllers may
-- find, its source and its number there.
-- Returns the entry's id, nil if another entry was first, or '' if the event has been written before.
local ENTRIES, STATE, OTHER_STATE = unpack(KEYS)
local chained_to, number, hash, entry, drop, idempotency_key, first_hash = unpack(ARGV, 1, 7)
local key, mac, head_mac, replaced, source, event = unpack(ARGV, 8)

local written = 'written:' .. source
if source ~= '' and tonumber(redis.call('HGET', STATE, written) or 0) >= tonumber(event) then
  return ''
end
if redis.call('HGET', STATE, 'word') == idempotency_key then
  return redis.call('HGET', STATE, 'id')
end
local newest, added = unpack(redis.call('HMGET', STATE, 'hash', 'added'))
if (newest or first_hash) ~= chained_to or tonumber(added or 0) ~= tonumber(number) - 1 then
  return false
end

local function parts(id)
  local ms, sequence = string.match(id or '', '^(%d+)%-(%d+)$')
  return tonumber(ms or 0), tonumber(sequence or 0)
end

-- Ids ascend over both chains.
local id = '*'
local time = redis.call('TIME')
local ms, sequence = parts(redis.call('HGET', OTHER_STATE, 'id'))
if ms >= time[1] * 1000 + math.floor(time[2] / 1000) then
  local last = redis.call('XREVRANGE', ENTRIES, '+', '-', 'COUNT', 1)[1]
  local own_ms, own_sequence = parts(last and last[1])
  if own_ms > ms or (own_ms == ms and own_sequence > sequence) then
    ms, sequence = own_ms, own_sequence
  end
  id = string.format('%.0f-%.0f', ms, sequence + 1)
end

-- Version 0.2 and older read the hash of a dropped entry by its place, after the value of the third field.
id = redis.call('XADD', ENTRIES, id, 'entry', entry, 'previous', chained_to, 'hash', hash, 'key', key, 'mac', mac)
redis.call('HSET', STATE, 'hash', hash, 'id', id, 'word', idempotency_key, 'added', number)
if key ~= '' then
  redis.call('HSET', STATE, 'key', key, 'mac', head_mac, 'signed', number, 'replaced', replaced)
end
if source ~= '' then
  redis.call('HSET', STATE, written, event)
end
if tonumber(drop) > 0 then
  for _, dropped in ipairs(redis.call('XRANGE', ENTRIES, '-', '+', 'COUNT', drop)) do
    redis.call('HSET', STATE, 'trimmed_hash', dropped[2][6])
    redis.call('XDEL', ENTRIES, dropped[1])
  end
  redis.call('HINCRBY', STATE, 'trimmed', drop)
end
return id
