"""How people say what a camera or a subject does: many phrasings of each class, and others that training never sees.

A phrasing is put together from parts, all that go together: "the camera pans left", "panning slowly to the left",
"a pan to the left". Held-out phrasings use words or an order of words that the others do not.
"""

from __future__ import annotations

from functools import cache
from itertools import product

from zsar_cli.data.scenes.classes import CAMERAS, SUBJECTS, SceneClass, find_class

_WHO = ("the camera", "camera", "a camera that", "the shot", "the view", "the cameraman")
_TOWARDS = {
    "left": ("left", "to the left", "towards the left", "leftwards", "from right to left", "left slowly"),
    "right": ("right", "to the right", "towards the right", "rightwards", "from left to right", "right slowly"),
    "up": ("up", "upwards", "upward", "from bottom to top", "up slowly"),
    "down": ("down", "downwards", "downward", "from top to bottom", "down slowly"),
    "in": ("in", "in slowly", "in on something", "inwards", "in closer"),
    "out": ("out", "out slowly", "out wide", "outwards", "out to a wide shot"),
    "clockwise": ("clockwise", "slowly clockwise", "in clockwise direction", "to the right about its axis"),
    "counterclockwise": (
        "counterclockwise", "counter-clockwise", "anticlockwise", "anti-clockwise",
        "slowly counterclockwise", "to the left about its axis",
    ),
}  # fmt: skip
# (what a camera does, doing so, the noun of it)
_MOVES = {
    "pan": (
        ("pans", "turns", "sweeps", "moves", "slides", "tracks"),
        ("panning", "sweeping", "camera moving", "tracking"),
        (
            "a pan",
            "pan",
            "a panning shot",
            "a camera pan",
            "a slow pan",
            "camera movement",
            "a tracking shot",
        ),
    ),
    "tilt": (
        ("tilts", "moves", "turns", "looks", "cranes"),
        ("tilting", "camera moving", "craning"),
        (
            "a tilt",
            "tilt",
            "a tilting shot",
            "a camera tilt",
            "a slow tilt",
            "camera movement",
            "a crane shot",
        ),
    ),
    "zoom": (
        ("zooms", "dollies", "pushes", "moves"),
        ("zooming", "dollying", "pushing"),
        ("a zoom", "zoom", "a zooming shot", "a camera zoom", "a slow zoom", "a dolly"),
    ),
    "roll": (
        ("rolls", "rotates", "turns", "spins", "twists"),
        ("rolling", "rotating", "camera rotating", "spinning"),
        (
            "a roll",
            "roll",
            "a rolling shot",
            "a camera roll",
            "a camera rotation",
            "a rotation of the camera",
        ),
    ),
}
_ZOOM_OUT = {"pushes": "pulls", "pushing": "pulling"}
_OTHERS = {
    "static": (
        "a static shot", "static shot", "static camera", "the camera is static", "the camera does not move",
        "the camera stands still", "the camera stays still", "a still camera", "a fixed camera", "a fixed shot",
        "the camera is fixed", "a stationary camera", "a stationary shot", "the camera holds still",
        "a shot from a tripod",
        "a tripod shot", "no camera movement", "no camera motion", "a camera without movement", "an unmoving camera",
        "a locked camera", "a locked shot", "the camera is locked off on a tripod", "steady shot, camera not moving",
        "the frame does not move", "a motionless camera",
    ),
    "shake": (
        "the camera shakes", "a shaky camera", "shaky camera", "shaky footage", "a shaking camera", "camera shake",
        "the camera is shaking", "a shaky handheld shot", "shaky handheld footage", "the camera trembles",
        "the camera jitters",
        "a jittery shot", "jittery handheld camera", "a trembling camera", "the camera wobbles", "a wobbly shot",
        "an unsteady camera", "an unsteady handheld shot", "the picture shakes", "the camera vibrates",
    ),
}  # fmt: skip
_SOMETHING = (
    "something",
    "an object",
    "a thing",
    "somebody",
    "a person",
    "someone",
    "a man",
    "a woman",
    "the subject",
)
_ACTS = {
    "still": (
        "nothing moves", "nothing is moving", "no movement", "nothing happens", "everything stands still",
        "everything is still", "nobody moves", "a still scene", "a scene without movement", "no motion at all",
    ),
    "left": ("moves left", "moves to the left", "goes left", "goes to the left", "walks to the left", "moving left",
             "passes from right to left", "crosses to the left", "travels leftwards"),
    "right": ("moves right", "moves to the right", "goes right", "goes to the right", "walks to the right",
              "moving right", "passes from left to right", "crosses to the right", "travels rightwards"),
    "up": ("moves up", "rises", "goes up", "moves upwards", "climbs", "moving up", "rises upwards"),
    "down": ("moves down", "falls", "goes down", "moves downwards", "sinks", "moving down", "falls downwards"),
    "nearer": ("comes nearer", "comes closer", "approaches", "comes towards the camera", "moves towards the camera",
               "approaches the camera", "gets closer", "walks towards the camera", "coming nearer", "grows larger"),
    "away": ("goes away", "moves away", "moves away from the camera", "walks away", "walks away from the camera",
             "recedes", "goes off into the distance", "going away", "gets smaller", "leaves"),
    "turn": ("turns", "turns around", "rotates", "spins", "is turning", "revolves", "turning",
             "spinning around", "twirls"),
    "wave": ("waves", "waves a hand", "is waving", "waving", "waves with an arm", "waves hello", "waves goodbye"),
}  # fmt: skip

LONGEST = 12  # words; a text tower's context is short

HELD_OUT = {
    "static": ("locked-off shot", "the camera remains in place", "tripod-mounted footage", "a camera at rest"),
    "pan left": ("camera swings to the left side", "the shot pans over toward the left",
                 "a leftward panning movement",
                 "the operator pans the camera left"),
    "pan right": ("camera swings to the right side", "the shot pans over toward the right",
                  "a rightward panning movement",
                  "the operator pans the camera right"),
    "tilt up": ("camera tips up to the sky", "the shot tilts toward the top", "an upward tilting movement",
                "the operator tilts the camera up"),
    "tilt down": ("camera tips down to the floor", "the shot tilts toward the bottom", "a downward tilting movement",
                  "the operator tilts the camera down"),
    "zoom in": ("the lens zooms in tight", "zoom in for a close-up", "an inward zooming movement",
                "the operator zooms the camera in"),
    "zoom out": ("the lens zooms out far", "zoom out to reveal the scene", "an outward zooming movement",
                 "the operator zooms the camera out"),
    "roll clockwise": ("the horizon turns as the camera rolls clockwise", "a clockwise dutch roll",
                       "a clockwise rolling movement", "the operator rolls the camera clockwise"),
    "roll counterclockwise": ("the horizon turns as the camera rolls counterclockwise",
                              "a counterclockwise dutch roll",
                              "a counterclockwise rolling movement", "the operator rolls the camera counterclockwise"),
    "shake": ("nervous, shaky camerawork", "the camera jerks about", "bumpy handheld filming",
              "the operator shakes the camera"),
}  # fmt: skip


def held_out_phrasings(label: str) -> tuple[str, ...]:
    """List phrasings of a camera's move that training never sees."""
    return HELD_OUT[str(find_class(label).camera)]


@cache
def phrasings(label: str) -> tuple[str, ...]:
    """List the phrasings of a class that training draws from; the label itself is the first."""
    kind = find_class(label)
    found = [label, *_of(kind)]
    return tuple(dict.fromkeys(text for text in found if len(text.split()) <= LONGEST))


def _of(kind: SceneClass) -> list[str]:
    if kind.group == "camera":
        return _camera_phrases(str(kind.camera))
    if kind.group == "subject":
        return _subject_phrases(str(kind.subject))
    links = ("{s} while {c}", "{c} while {s}", "{s} and {c}", "{c} and {s}", "{s} as {c}", "{c}, {s}")
    cameras = _sentences(str(kind.camera))
    subjects = [SUBJECTS[str(kind.subject)], *_subject_phrases(str(kind.subject))]
    return [
        link.format(s=subjects[n % len(subjects)], c=cameras[(n // 2) % len(cameras)])
        for n, link in enumerate(links * 24)
    ]


def _sentences(camera: str) -> list[str]:
    """List whole sentences of a camera's move, which a pair can be made of."""
    return [CAMERAS[camera], *(p for p in _camera_phrases(camera) if p.startswith(("the camera", "camera ")))]


def _camera_phrases(camera: str) -> list[str]:
    if camera in _OTHERS:
        return list(_OTHERS[camera])
    move, way = camera.split(" ")
    verbs, doing, nouns = _MOVES[move]
    if way == "out":
        verbs, doing = (tuple(_ZOOM_OUT.get(word, word) for word in words) for words in (verbs, doing))
    ways = _TOWARDS[way]
    found = [f"{who} {verb} {to}" for who, verb, to in product(_WHO, verbs, ways)]
    found += [f"{verb} {to}" for verb, to in product(doing, ways)]
    found += [
        f"the camera is {verb} {to}" for verb, to in product(doing, ways) if not verb.startswith("camera")
    ]
    found += [f"{noun} {to}" for noun, to in product(nouns, ways)]
    found += [f"{move} {way}", f"{way} {move}", f"a {way} {move}"]
    return found


def _subject_phrases(subject: str) -> list[str]:
    acts = _ACTS[subject]
    if subject == "still":
        return list(acts)
    who = (
        _SOMETHING
        if subject != "wave"
        else ("somebody", "someone", "a person", "a man", "a woman", "a child")
    )
    return [f"{w} {act}" for w, act in product(who, acts)]


@cache
def vocabulary() -> frozenset[str]:
    """List the words of all phrasings that training draws from, in lower case."""
    from zsar_cli.data.scenes.classes import classes

    texts = (text for c in classes() for text in phrasings(c.label))
    return frozenset(word.strip(",.") for text in texts for word in text.lower().replace("-", " ").split())
