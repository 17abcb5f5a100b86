"""Constants of the queue. The scripts get those that they name as locals; see `waitroom.store.scripts`."""

from __future__ import annotations

from typing import Final

# The version of the format of a room's data. Raise it only for a change that older versions would misread: they refuse
# rooms of a newer version. A room without the field is of version 0. Version 2 has events; a room without any stays at
# 1, so that a gateway of an earlier version can serve it.
SCHEMA: Final = 2
SCHEMA_WITHOUT_EVENTS: Final = 1

# Clocks.
MAX_STEP_MS: Final = 10_000  # most that one reading adds to the room's clock: an outage or a jump ages nobody
EPOCH_MS: Final = 1_767_225_600_000  # 2026-01-01, where the places of generations begin
PLACES_PER_MS: Final = 100  # more than anyone joins, so that a later generation's places are all behind

# Presence.
WINDOW_MS: Final = 15_000  # the time that one bitmap of presence marks covers
CHUNK: Final = 65_536  # places per bitmap: 8 KiB
FAR_MARKS: Final = 256  # bits: marks that are further apart on average are read one by one

# Sessions.
SLOT_MARGIN_MS: Final = 30_000  # how much longer a slot lasts than its pass
FEED_MS: Final = 30_000  # how long ended sessions are listed; workers look twice a second
MAX_LISTED_ENDS: Final = 1_000  # in one view

# Recovery after a loss.
SETTLE_MS: Final = 1_000  # after a restart without a known loss: each worker refreshes its view within that time
ENOUGH_REPORTED: Final = 0.9  # of those known; some have left, or won't come back
KEY_COUNTS: Final = 64  # `key_stamp` is the clock times this, plus the numbers of existing keys
OTHER_KEYS: Final = 11  # more than there are other keys

# Bounds of the scripts' work.
BATCH: Final = 1_000  # members in one command, well under Lua's limit for unpack
SHUFFLED_LOOK_UP: Final = 5  # the cost of looking up the presence of one visitor in a shuffled prequeue
PIECE: Final = 100  # waiting visitors whose presence is looked up together
MAX_INVITED: Final = 100  # places called out of order whose visitors haven't come yet
MAX_RANGES: Final = 1_000  # ranges of places issued in older generations
MAX_AUDIT_EVENTS: Final = 1_000  # in the outbox; people cause them, and it is emptied every second
REPLY_KEPT_MS: Final = 10_000  # much longer than a caller retries

# Events.
SHUFFLE_SPAN: Final = 2**26  # ranks of a shuffled prequeue; newcomers after the start get places behind them
MAX_DRAWS: Final = 4  # shuffled prequeues whose places may still be in the queue
MAX_EVENTS: Final = 64  # of a room, ended ones included
EVENT_RETENTION_MS: Final = 90 * 24 * 3600 * 1000
RISE_AFTER_ZERO_MS: Final = 2_000  # a response of the shop that reports units sooner was under way before the zero

# Positions.
RANK_INDEX_MS: Final = 1_000  # age at which the rank index is rebuilt
EXACT_RANKS: Final = 64  # at the head
RANK_INDEX_POINTS: Final = 320  # behind them

# Throughput.
SMALL_ROOM: Final = 20  # slots; a smaller room remembers the throughput for as long as one of this size
PRESENCE_MEMORY: Final = 300  # visitors
TOLERANCE: Final = 1.3  # a throughput that differs by less is taken as unchanged
