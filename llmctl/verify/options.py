"""The settings of every kind of problem, for the stages that make problems: `synth` writes them down, `rl` practises
them. Each kind's group is defined beside its problems.
"""

from __future__ import annotations

from llmctl.recipe import StageSettings
from llmctl.verify.code import CodeOptions
from llmctl.verify.countdown import CountdownOptions
from llmctl.verify.decimals import DecimalsOptions
from llmctl.verify.gsm8k import Gsm8kOptions
from llmctl.verify.identity import IdentityOptions
from llmctl.verify.letters import LettersOptions
from llmctl.verify.lookup import LookupOptions
from llmctl.verify.mathematics import MathOptions
from llmctl.verify.names import NamesOptions
from llmctl.verify.python_tool import PythonOptions
from llmctl.verify.spelling import SpellingOptions
from llmctl.verify.sums import SumsOptions


class ProblemSettings(StageSettings):
    """A group of settings for each kind of problem, named as the kind is."""

    sums: SumsOptions = SumsOptions()
    """The problems of the kind `sums`: arithmetic with worked steps."""
    identity: IdentityOptions = IdentityOptions()
    """The problems of the kind `identity`: who the model is."""
    names: NamesOptions = NamesOptions()
    """The problems of the kind `names`: known ones and made-up ones."""
    lookup: LookupOptions = LookupOptions()
    """The problems of the kind `lookup`, solved with the search tool."""
    python: PythonOptions = PythonOptions()
    """The problems of the kind `python`, solved with the python tool."""
    countdown: CountdownOptions = CountdownOptions()
    """The problems of the kind `countdown`: reach a number by arithmetic on others."""
    letters: LettersOptions = LettersOptions()
    """The problems of the kind `letters`: counting letters and marks."""
    spelling: SpellingOptions = SpellingOptions()
    """The problems of the kind `spelling`: forwards and backwards."""
    decimals: DecimalsOptions = DecimalsOptions()
    """The problems of the kind `decimals`: which of two is larger, 9.11 or 9.9."""
    gsm8k: Gsm8kOptions = Gsm8kOptions()
    """The problems of the kind `gsm8k`: word problems, the published ones or made by code."""
    math: MathOptions = MathOptions()
    """The problems of the kind `math`: fractions, or a file in MATH's form."""
    code: CodeOptions = CodeOptions()
    """The problems of the kind `code`: functions with tests, run in the sandbox."""
