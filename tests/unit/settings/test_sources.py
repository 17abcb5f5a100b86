"""The line numbers of keys in a TOML file, in any notation."""

from __future__ import annotations

from waitroom.settings.sources import key_lines


def test_lines_are_found_in_any_notation() -> None:
    text = '''\
# comment = 1

listen = "a" # x = 1
"quoted key" = 1
text = """
workers = 1
[[rooms]]
"""
list = [
  "a", # ]
  "[b]",
]
one.two.three = 1
  inline = {a = 1, b = {c = 2}}

[[rooms]]   # first
name = "a"
[[rooms.bypass]]

paths = []
[[rooms.bypass]]
paths = []

[[ rooms ]]
name = "b"
'bypass' = [{paths = []}]
[rooms.more.below]
x = 1
[other."a.b"]
y = 1'''
    data = {
        "listen": "a",
        "quoted key": 1,
        "rooms": [{"bypass": [{}, {}]}, {"bypass": [{}], "more": {"below": {}}}],
        "other": {"a.b": {}},
    }
    assert key_lines(text, data) == {
        ("listen",): 3,
        ("quoted key",): 4,
        ("text",): 5,
        ("list",): 9,
        ("one",): 13,
        ("one", "two"): 13,
        ("one", "two", "three"): 13,
        ("inline",): 14,
        ("inline", "a"): 14,
        ("inline", "b"): 14,
        ("inline", "b", "c"): 14,
        ("rooms", 0): 16,
        ("rooms", 0, "name"): 17,
        ("rooms", 0, "bypass", 0): 18,
        ("rooms", 0, "bypass", 0, "paths"): 20,
        ("rooms", 0, "bypass", 1): 21,
        ("rooms", 0, "bypass", 1, "paths"): 22,
        ("rooms", 1): 24,
        ("rooms", 1, "name"): 25,
        ("rooms", 1, "bypass"): 26,
        ("rooms", 1, "more", "below"): 27,
        ("rooms", 1, "more", "below", "x"): 28,
        ("other", "a.b"): 29,
        ("other", "a.b", "y"): 30,
    }
