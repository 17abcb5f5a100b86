-- Marks waiting visitors as seen now. ARGV, after the clock and the run id: places.
local room = load_room()
if not room then
  return false
end
local places = {}
for i = 3, #ARGV do
  places[#places + 1] = tonumber(ARGV[i])
end
mark_seen(room, places)
save_room(room)
return #places
