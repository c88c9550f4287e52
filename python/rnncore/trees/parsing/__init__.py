"""Structure learnt: trees over sentences or neighbouring regions, by a score for each merge.

`parser` is the module that users see. `spans` tells right merges from wrong ones and measures what
was found, `nodes` merges, `search` chooses what to merge, `margin` is the loss.
"""

from .parser import Parsed, Parser
from .spans import Bracketing, bracketing

__all__ = ["Bracketing", "Parsed", "Parser", "bracketing"]
