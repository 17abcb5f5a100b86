-- Announces a gateway to the others over this store, and reads the store's clock.
-- KEYS: the hash of gateways by id. ARGV: the id; the gateway as JSON; after how many ms without a sign of life the
-- others are forgotten.
-- Returns {the store's wall clock in ms, the other gateways that are alive, as JSON}.
local gateways = KEYS[1]
local id, own, kept_ms = ARGV[1], ARGV[2], tonumber(ARGV[3])

local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
local others = {}
local all = redis.call('HGETALL', gateways)
for i = 1, #all, 2 do
  local at, gateway = string.match(all[i + 1], '^(%d+) (.*)$')
  local age = at and now - tonumber(at)
  if all[i] ~= id and age and age < kept_ms and age > -kept_ms then
    others[#others + 1] = gateway
  elseif all[i] ~= id then -- gone, or the clock of the store was set
    redis.call('HDEL', gateways, all[i])
  end
end
redis.call('HSET', gateways, id, string.format('%.0f', now) .. ' ' .. own)
return { string.format('%.0f', now), others }
