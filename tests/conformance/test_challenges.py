from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_mcp_conformance.challenges import Challenge, MalformedChallenge, parse_challenges

TOKENS = st.text(st.sampled_from("abcXYZ019!#$%&'*+-.^_`|~"), min_size=1, max_size=8)
QUOTABLE = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), max_size=20)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Bearer", [Challenge("Bearer")]),
        ("Bearer ", [Challenge("Bearer")]),
        ('Bearer realm="x"', [Challenge("Bearer", {"realm": "x"})]),
        ('bearer REALM = "x" , scope=a', [Challenge("bearer", {"realm": "x", "scope": "a"})]),
        ('Bearer error="a, b", scope="c d"', [Challenge("Bearer", {"error": "a, b", "scope": "c d"})]),
        (r'Bearer realm="say \"hi\" \\ there"', [Challenge("Bearer", {"realm": r'say "hi" \ there'})]),
        ('Basic realm="x", Bearer', [Challenge("Basic", {"realm": "x"}), Challenge("Bearer")]),
        ('Bearer, DPoP algs="ES256"', [Challenge("Bearer"), Challenge("DPoP", {"algs": "ES256"})]),
        ("Negotiate aGk=, Bearer a=b", [Challenge("Negotiate", token68="aGk="), Challenge("Bearer", {"a": "b"})]),
        (', Bearer realm="x",', [Challenge("Bearer", {"realm": "x"})]),
        ('Bearer realm=""', [Challenge("Bearer", {"realm": ""})]),
    ],
)
def test_a_field_in_the_grammar_is_read_as_its_challenges(text: str, expected: list[Challenge]) -> None:
    assert parse_challenges([text]) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "  ",
        ",",
        '"Bearer"',
        'Bearer realm="x',
        'Bearer realm="x"scope="y"',
        'Bearer realm="x" scope="y"',
        'Bearer realm="a", realm="b"',
        'Bearer realm="a", REALM=b',
        "Bearer realm=a b",
        "Bearer realm=http://x/y",
        'Bearer realm="a\x00"',
        'Bearer realm="x";',
        "Bearer\trealm=x",
    ],
)
def test_a_field_outside_the_grammar_is_refused(text: str) -> None:
    with pytest.raises(MalformedChallenge):
        parse_challenges([text])


def test_several_field_lines_are_one_list_in_order() -> None:
    assert [challenge.scheme for challenge in parse_challenges(["DPoP", 'Bearer realm="x", Basic'])] == [
        "DPoP",
        "Bearer",
        "Basic",
    ]


@given(
    st.lists(st.tuples(TOKENS, st.dictionaries(TOKENS.map(str.lower), QUOTABLE, max_size=3)), min_size=1, max_size=3)
)
def test_whatever_is_written_with_quotes_is_read_back(written: list[tuple[str, dict[str, str]]]) -> None:
    texts = []
    for scheme, parameters in written:
        quoted = [
            f'{name}="' + value.replace("\\", "\\\\").replace('"', '\\"') + '"' for name, value in parameters.items()
        ]
        texts.append(f"{scheme} {', '.join(quoted)}".rstrip())
    read = parse_challenges([", ".join(texts)])
    assert [(challenge.scheme, dict(challenge.parameters)) for challenge in read] == written
