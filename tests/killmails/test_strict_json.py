"""JSON, and what only looks like it."""

import pytest

from killmails.strict_json import MAX_DEPTH, BadJson, read_json


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b'{"a":[1,-2.5,true,false,null,"x"]}', {"a": [1, -2.5, True, False, None, "x"]}),
        (b' {"a" : 1}\r\n', {"a": 1}),
        (b'{"a":"\\u0000\\ud800"}', {"a": "\x00\ud800"}),
        (b'{"a":"caf\xc3\xa9 \\u00e9 \\ud83d\\ude80"}', {"a": "caf\xe9 \xe9 \U0001f680"}),
        (b'{"":{"":1}}', {"": {"": 1}}),
        (b"1e308", 1e308),
        (b"1e-400", 0.0),
        (b"9223372036854775808", 2**63),
        (b"-0", 0),
        (b"1." + b"0" * 5000, 1.0),
    ],
)
def test_json_is_read(raw, value):
    assert read_json(raw) == value


@pytest.mark.parametrize(
    ("raw", "why"),
    [
        (b"NaN", "NaN"),
        (b"[Infinity]", "Infinity"),
        (b'{"a":-Infinity}', "-Infinity"),
        (b"1e400", "double"),
        (b"-1e400", "double"),
        (b"1" * 21, "21 digits"),
        (b"-" + b"1" * 20, "21 digits"),
        (b"9" * 1_000_000, "1000000 digits"),
        (b'{"a":1,"a":1}', "same key twice"),
        (b'[{"b":{"a":1,"c":2,"a":3}}]', "same key twice"),
        (b'{"a":1,"\\u0061":1}', "same key twice"),
        (b'"\xff"', "not UTF-8 at byte 1"),
        (b'"\xed\xa0\x80"', "not UTF-8 at byte 1"),
        (b"\xef\xbb\xbf{}", "BOM"),
        ('{"a":1}'.encode("utf-16"), "not UTF-8"),
        (b"", "at character 0 of 0"),
        (b"{} {}", "at character 3 of 5"),
        (b'{"a":1,}', "at character 7 of 8"),
        (b"{'a':1}", "at character 1"),
        (b'"a\nb"', "at character 2"),
        (b"[1", "at character 2 of 2"),
    ],
    ids=lambda value: repr(value[:20]),
)
def test_anything_else_is_refused_with_the_cause(raw, why):
    with pytest.raises(BadJson, match=why):
        read_json(raw)


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}"), (b'[{"a":', b"}]")])
def test_depth_of_32_is_read_and_33_is_refused(opening, closing):
    deep = MAX_DEPTH // (1 + opening.count(b"[{"))
    assert read_json(opening * deep + b"1" + closing * deep)
    with pytest.raises(BadJson, match="deeper than 32"):
        read_json(b"[" + opening * deep + b"1" + closing * deep + b"]")


@pytest.mark.parametrize("opening", [b"[", b'{"a":'])
@pytest.mark.parametrize("depth", [500, 1000, 5000, 100_000, 1_000_000])
def test_any_depth_is_refused_without_a_recursion_error(opening, depth):
    closing = b"]" if opening == b"[" else b"}"
    with pytest.raises(BadJson, match="nested"):
        read_json(opening * depth + b"1" + closing * depth)
