"""All odd messages, in one list, by name."""

from tests.corpus.bodies import bodies
from tests.corpus.headers import headers
from tests.corpus.hostile import hostile
from tests.corpus.mime import mime
from tests.corpus.odd import Odd
from tests.corpus.sizes import sizes

ODD: tuple[Odd, ...] = (*bodies(), *headers(), *mime(), *sizes(), *hostile())
