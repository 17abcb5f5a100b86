-- Marks waiting visitors as seen now. ARGV: wall clock or '', places.
local room = load_room(ARGV[1])
if not room then
  return false
end
local places = {}
for i = 2, #ARGV do
  places[#places + 1] = tonumber(ARGV[i])
end
mark_seen(room, places)
save_room(room)
return #places
