-- The room as an edge keeps it in memory. ARGV, after the clock and the run id: stamp of the table it has, points of a
-- new table, how far it has read the ended sessions and in which generation ('' for not at all).
-- The table maps ranks to places: exact at the head, then ever wider apart; the last pair is the next newcomer's.
-- Whoever finds it older than a second makes it.
-- Returns {pairs of the room's fields, waiting, called, away, active, stamp, table or '' where it is the known one,
-- the next ended sessions as KIND:SESSION, how far that is};
-- nil where the room isn't open.
local TABLE_MS = 1000
local EXACT = 64
local MOST_ENDED = 1000

local room = load_room()
if not room then
  return false
end
save_room(room)
local waiting = redis.call('ZCARD', WAITING)

local function make_table(points)
  local parts = {}
  local head = redis.call('ZRANGE', WAITING, 0, EXACT - 1)
  for i, place in ipairs(head) do
    parts[#parts + 1] = text(i - 1) .. ' ' .. place
  end
  local last = EXACT - 1
  for i = 1, points do
    local rank = EXACT - 1 + math.ceil((waiting - EXACT) * (i / points) * (i / points))
    if rank > last and rank < waiting then
      last = rank
      parts[#parts + 1] = text(rank) .. ' ' .. redis.call('ZRANGE', WAITING, rank, rank)[1]
    end
  end
  parts[#parts + 1] = text(waiting) .. ' ' .. text(room.seq + 1)
  return table.concat(parts, ' ')
end

local kept = redis.call('HMGET', TABLE, 'stamp', 'table')
local stamp, body = tonumber(kept[1]), kept[2]
if not stamp or room.clock - stamp >= TABLE_MS then
  stamp, body = room.clock, make_table(tonumber(ARGV[4]))
  redis.call('HSET', TABLE, 'stamp', text(stamp), 'table', body)
end
if ARGV[3] == text(stamp) then
  body = ''
end

local read = (room.clock - FEED_MS) * 1000
if ARGV[6] == text(room.generation) then
  read = math.max(read, tonumber(ARGV[5]))
end
local ended = redis.call('ZRANGEBYSCORE', FEED, '(' .. text(read), '+inf', 'WITHSCORES', 'LIMIT', 0, MOST_ENDED)
local endings = {}
for i = 1, #ended, 2 do
  endings[#endings + 1] = ended[i]
  read = tonumber(ended[i + 1])
end
return { redis.call('HGETALL', ROOM), waiting, redis.call('ZCARD', CALLED), redis.call('ZCARD', AWAY),
  redis.call('ZCARD', ACTIVE), text(stamp), body, endings, text(read) }
