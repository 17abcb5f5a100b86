-- Calls one visitor now, out of order, at an operator's request.
-- ARGV: place; the audit event, JSON; idempotency key.
-- It takes a slot, which must be free, and a token, which need not be there yet: the queue then continues that much
-- later, and on average the rate holds. Nothing changes for a visitor who is called or active already.
-- Workers only ask the store about places that a tick has reached. Places beyond are therefore listed in `invited` for
-- as long as they are called or away.
-- Returns called, admitted, unknown, not_open, full or too_many.
local ticket_place, audit_event, idempotency_key = ARGV[3], ARGV[4], ARGV[5]

local room = load_room()
if not room then
  return false
end
local place = current_place(ticket_place)

-- Returns the places that are still to be listed.
local function invited_places()
  local invited = {}
  for one in string.gmatch(redis.call('HGET', ROOM, 'invited') or '', '%d+') do
    local expected = redis.call('ZSCORE', CALLED, one) or redis.call('ZSCORE', AWAY, one)
    if expected and rank_of(room, tonumber(one)) > room.head then
      invited[#invited + 1] = one
    end
  end
  return invited
end

local function admit()
  if redis.call('ZSCORE', ACTIVE, place) then
    return 'admitted'
  end
  if redis.call('ZSCORE', CALLED, place) then
    return 'called'
  end
  if not (redis.call('ZSCORE', WAITING, place) or redis.call('ZSCORE', AWAY, place)) then
    return 'unknown'
  end
  if not accepts_claims(room) then
    return 'not_open'
  end
  if room.method ~= 'passthrough' and vacant_slots(room) <= 0 then
    return 'full'
  end
  if rank_of(room, tonumber(place)) > room.head then
    local invited = invited_places()
    if #invited >= MAX_INVITED then
      return 'too_many'
    end
    invited[#invited + 1] = place
    redis.call('HSET', ROOM, 'invited', table.concat(invited, ' '))
  end
  redis.call('ZREM', WAITING, place)
  redis.call('ZREM', AWAY, place)
  redis.call('HDEL', TURNS, place)
  redis.call('ZADD', CALLED, to_string(room.turn_clock + room.claim_ms), place)
  report(room, tonumber(place), 'waiting')
  count_change(room, true)
  take_tokens(room, 1)
  return 'called'
end

local cached = cached_reply(idempotency_key)
if cached then
  return cached
end
local outcome = admit()
if outcome == 'called' or outcome == 'admitted' then
  enqueue_audit_event(room, audit_event, {}, {})
end
save_room(room)
return reply(idempotency_key, outcome)
