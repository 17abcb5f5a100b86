"""The audit log as versions before signatures wrote it: their script, and an entry by it."""

from __future__ import annotations

import secrets
from typing import Any

from redis.asyncio import Redis

from waitroom.control.audit.chain import FIRST_HASH, canonical, chain_hash
from waitroom.control.audit.log import STATE, STREAM

APPEND = """
local ENTRIES, STATE = unpack(KEYS)
local chained_to, hash, entry, most, idempotency_key, first_hash = unpack(ARGV)
if (redis.call('HGET', STATE, 'hash') or first_hash) ~= chained_to then return false end
local id = redis.call('XADD', ENTRIES, '*', 'entry', entry, 'previous', chained_to, 'hash', hash)
redis.call('HSET', STATE, 'hash', hash, 'id', id, 'word', idempotency_key)
redis.call('HINCRBY', STATE, 'added', 1)
local excess = math.min(redis.call('XLEN', ENTRIES) - tonumber(most), 100)
if excess > 0 then
  for _, dropped in ipairs(redis.call('XRANGE', ENTRIES, '-', '+', 'COUNT', excess)) do
    redis.call('HSET', STATE, 'trimmed_hash', dropped[2][6])
    redis.call('XDEL', ENTRIES, dropped[1])
  end
  redis.call('HINCRBY', STATE, 'trimmed', excess)
end
return id
"""


async def write_unsigned(redis: Redis, note: str, *, outcome: str = "done", most: int = 1000) -> None:
    """Appends an entry as an older version does."""
    texts = {"at": "2026-11-01T00:00:00.000Z", "who": "ada", "role": "operator", "address": "", "via": "api"}
    entry: dict[str, Any] = {**texts, "action": "change", "room": "shop", "old": {}, "new": {}, "note": note}
    content = canonical({**entry, "outcome": outcome})
    newest = await redis.hget(STATE, "hash")
    previous = FIRST_HASH if newest is None else newest.decode()
    arguments = [previous, chain_hash(previous, content), content, most, secrets.token_hex(8), FIRST_HASH]
    assert await redis.eval(APPEND, 2, STREAM, STATE, *arguments)


async def is_intact_to_an_older_version(redis: Redis) -> bool:
    """What ``waitroom audit verify`` of an older version finds: hashes only."""
    state = {name.decode(): value.decode() for name, value in (await redis.hgetall(STATE)).items()}
    hash_, entries = state.get("trimmed_hash", FIRST_HASH), await redis.xrange(STREAM)
    for _, fields in entries:
        if fields[b"previous"].decode() != hash_ or chain_hash(hash_, fields[b"entry"]) != fields[b"hash"].decode():
            return False
        hash_ = fields[b"hash"].decode()
    return hash_ == state["hash"] and len(entries) == int(state["added"]) - int(state.get("trimmed", "0"))
