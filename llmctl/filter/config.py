"""The settings of `llmctl filter`: one group a step, named as the step's file, in the order in which the steps run.

Every default is FineWeb's (Penedo et al. 2024, arXiv:2406.17557, and its `examples/fineweb.py` in datatrove) unless the
text under it says otherwise. A threshold set to `null` switches that one rule off; `enabled: false` the whole step.
`thresholds` names what can be changed without measuring the documents again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, Field, model_validator

from llmctl.recipe import InputOf, NoResult, Settings, StageSettings

FILE_MARK = "file:"

# The language models that fastText publishes, with their SHA-256.
FASTTEXT_LANGUAGE_MODELS = {
    "lid.176.bin": "7e69ec5451bc261cc7844e49e4792a85d7f09c06789ec800fc4a44aec362764e",
    "lid.176.ftz": "8f3472cfe8738a7b6099e8e999c3cbfae0dcd15696aac7d7738a8039db603e83",
}


def _list_files_exist(entries: list[str]) -> list[str]:
    for entry in entries:
        if entry.startswith(FILE_MARK) and not Path(entry[len(FILE_MARK) :]).expanduser().is_file():
            raise ValueError(f"no such file: {entry[len(FILE_MARK) :]}")
    return entries


def _file_exists(path: str) -> str:
    if path and not Path(path).expanduser().is_file():
        raise ValueError(f"no such file: {path}")
    return path


def _language_model_exists(name: str) -> str:
    return name if name in FASTTEXT_LANGUAGE_MODELS else _file_exists(name)


def _is_function_name(name: str) -> str:
    if name and not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", name):
        raise ValueError(f"{name!r} is not written as module:function")
    return name


Entries = Annotated[list[str], AfterValidator(_list_files_exist)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class UrlSettings(Settings):
    """Block lists. Each takes entries, and `file:PATH` for a file with one entry a line (`#` begins a comment line)."""

    thresholds: ClassVar[frozenset[str]] = frozenset(("soft_word_count",))

    enabled: bool = True
    """Drop pages by their address. Without lists nothing is dropped: FineWeb's 4.6 million domains are the UT1 lists of
    the University of Toulouse, which are not ours to ship."""
    domains: Entries = []
    """Registered domains (`example.com`, all its subdomains with it), exact hosts (`blog.example.com`) or IP addresses.
    Millions are fine: 199 MB a process for FineWeb's."""
    urls: Entries = []
    """Whole addresses, with or without `http://` or `https://`."""
    words: Entries = []
    """One of these as a word of the address (between characters that are no letters or digits) drops the page."""
    soft_words: Entries = []
    """`soft_word_count` different ones of these as words of the address drop the page."""
    soft_word_count: int = Field(2, ge=1)
    """How many `soft_words` it takes. FineWeb takes 2: one alone ("teen", "video") is common on harmless pages."""
    subwords: Entries = []
    """One of these anywhere in the address, its punctuation taken out and lower-cased, drops the page: finds words that
    are written apart on purpose, and now and then an innocent word that contains one."""
    ignore_case: bool = False
    """Compare `words` and `soft_words` lower-cased. FineWeb does not, so `/XXX/` in capitals passes there."""


class ExtractSettings(Settings):
    """Main text out of HTML. Documents that are text already pass through."""

    enabled: bool = True
    """Off: the HTML itself is taken as the text."""
    extractor: Literal["trafilatura", "resiliparse"] = "trafilatura"
    """Trafilatura, as FineWeb, or Resiliparse (an extra: pip install 'llmctl-toolkit[fast]'), as DCLM and Dolma: ten
    times as fast and less exact, F1 0.937 for 0.965 on 91 hand-marked articles."""
    favor_precision: bool = True
    """Trafilatura: rather lose a paragraph than keep a menu, as FineWeb does. Off, it keeps more of both."""
    comments: bool = False
    """Keep readers' comments below an article."""
    tables: bool = True
    """Keep the text of tables."""
    deduplicate: bool = False
    """Trafilatura's own removal of repeated segments. FineWeb has it on, but it remembers across documents, so what is
    kept depends on which documents a process has seen before; off, the result is the same however the work is
    divided."""
    fast: bool = False
    """Skip Trafilatura's fallback extractors: 1.7 times as fast, F1 0.948 for 0.965 on those articles."""
    seconds: float = Field(5.0, gt=0)
    """Processor time a page may take before it is dropped. FineWeb gives 1 s of wall-clock time, which on a busy
    machine drops pages that a quiet one keeps; 99 % of pages take under 0.06 s, so the limit is only there for the
    hopeless ones."""
    max_bytes: int = Field(20_000_000, ge=1)
    """Larger pages are dropped unread; Trafilatura's own limit for what it downloads."""


class LanguageSettings(Settings):
    """Which languages to keep."""

    thresholds: ClassVar[frozenset[str]] = frozenset(("threshold",))

    enabled: bool = True
    """Find the language of every document, and keep those of `languages`."""
    languages: list[str] = ["en"]
    """Kept if any of these scores above the threshold (it need not be the best one). Empty: any language, if the best
    one scores above it."""
    threshold: Fraction | None = 0.65
    """FineWeb's, on fastText's score. The scores of the two models are not comparable, but both are near 1 on clear
    cases."""
    model: Annotated[str, AfterValidator(_language_model_exists)] = ""
    """The file of a fastText language model; or `lid.176.bin`, FineWeb's (131 MB), or `lid.176.ftz`, the same in small
    (1 MB, slightly less accurate): fetched from fasttext.cc at first use, checked, and kept in `$LLMCTL_CACHE` or
    `~/.cache/llmctl` (their licence does not let us ship them). Empty: py3langid, which is built in and knows 140
    languages."""


class GopherRepetitionSettings(Settings):
    """Repetition, by MassiveText's table A1 (Rae et al. 2021, arXiv:2112.11446)."""

    thresholds: ClassVar[frozenset[str]] = frozenset((
        "dup_para_frac", "dup_para_char_frac", "dup_line_frac", "dup_line_char_frac", "top_2_gram",
        "top_3_gram", "top_4_gram", "duplicated_5_n_grams", "duplicated_6_n_grams", "duplicated_7_n_grams",
        "duplicated_8_n_grams", "duplicated_9_n_grams", "duplicated_10_n_grams",
    ))  # fmt: skip

    enabled: bool = True
    """Drop documents that repeat themselves."""
    dup_para_frac: Fraction | None = 0.30
    """Paragraphs seen before in the document, as a fraction of its paragraphs, may not be above this."""
    dup_para_char_frac: Fraction | None = 0.20
    """Characters in paragraphs seen before, as a fraction of the document's."""
    dup_line_frac: Fraction | None = 0.30
    """Lines seen before, as a fraction of its lines."""
    dup_line_char_frac: Fraction | None = 0.20
    """Characters in lines seen before, as a fraction of the document's."""
    top_2_gram: Fraction | None = 0.20
    """Characters in the most frequent word pair, as a fraction of the document's. A text of a few words fails it by
    itself."""
    top_3_gram: Fraction | None = 0.18
    """The same of three words."""
    top_4_gram: Fraction | None = 0.16
    """The same of four words."""
    duplicated_5_n_grams: Fraction | None = 0.15
    """Characters in runs of five words seen before, as a fraction of the document's."""
    duplicated_6_n_grams: Fraction | None = 0.14
    """The same of six words."""
    duplicated_7_n_grams: Fraction | None = 0.13
    """The same of seven words."""
    duplicated_8_n_grams: Fraction | None = 0.12
    """The same of eight words."""
    duplicated_9_n_grams: Fraction | None = 0.11
    """The same of nine words."""
    duplicated_10_n_grams: Fraction | None = 0.10
    """The same of ten words. Reference pages with a fixed form (API documentation) repeat such runs without being
    spam."""


class GopherQualitySettings(Settings):
    """Does it look like prose? By MassiveText's rules."""

    thresholds: ClassVar[frozenset[str]] = frozenset((
        "min_words", "max_words", "min_word_length", "max_word_length", "hashes", "ellipses", "bullets",
        "end_ellipses", "alpha", "stop_words",
    ))  # fmt: skip

    enabled: bool = True
    """Drop documents that do not look like prose."""
    min_words: Count | None = 50
    """Words that are not pure punctuation: fewer drop the document."""
    max_words: Count | None = 100_000
    """More drop the document."""
    min_word_length: Annotated[float, Field(ge=0)] | None = 3.0
    """The mean length of those words may not be below this,"""
    max_word_length: Annotated[float, Field(ge=0)] | None = 10.0
    """nor above this."""
    hashes: Annotated[float, Field(ge=0)] | None = 0.1
    """Hash signs a word, at most."""
    ellipses: Annotated[float, Field(ge=0)] | None = 0.1
    """Ellipses (`...` and `…`) a word, at most."""
    bullets: Fraction | None = 0.9
    """Lines that begin with a bullet or a dash, as a fraction of all lines, at most."""
    end_ellipses: Fraction | None = 0.3
    """Lines that end in an ellipsis, as a fraction of all lines, at most."""
    alpha: Fraction | None = 0.8
    """Words with a letter in them, as a fraction of all words, at least. Punctuation marks count as words here, as in
    FineWeb, so prose with much punctuation or code fails it: 2,375 of 3,000 Markdown documents did. Try 0.7 for such
    text."""
    words: Literal["spacy", "whitespace"] = "spacy"
    """What `alpha` counts: `spacy` as FineWeb, with punctuation marks as words; `whitespace` what stands between white
    space, which is what MassiveText's paper means and keeps good technical prose."""
    stop_words: Count | None = 2
    """Different ones of: the be to of and that have with. Case matters ("The" does not count); fewer drop the
    document."""


class C4Settings(Settings):
    """C4's line rules (Raffel et al. 2020, arXiv:1910.10683). They rewrite the text: blank lines and bad lines go."""

    thresholds: ClassVar[frozenset[str]] = frozenset(("min_sentences",))

    enabled: bool = True
    """Clean the lines, and drop documents with too little left."""
    max_word_length: Annotated[int, Field(ge=1)] | None = 1000
    """A line with a longer word is left out."""
    citations: bool = True
    """Take out Wikipedia's `[1]`, `[edit]` and `[citation needed]`."""
    terminal_punctuation: bool = False
    """Leave out lines that do not end in . ? ! or a quotation mark. C4 has it on; FineWeb found that it costs 30 % of
    the tokens for what its own rules achieve with fewer, and has it off."""
    min_line_words: Count = 3
    """A line with fewer words is left out."""
    lorem_ipsum: bool = True
    """Drop documents with the printer's filler text."""
    javascript: bool = True
    """Leave out lines that mention JavaScript: mostly a request to switch it on."""
    curly_bracket: bool = True
    """Drop documents with a `{`: mostly code that leaked into the text. Off for corpora that are about code."""
    policy: bool = True
    """Leave out lines about cookies, terms of use and privacy policies."""
    min_sentences: Count | None = 5
    """Fewer sentences in the lines that are left drop the document."""


class FineWebQualitySettings(Settings):
    """FineWeb's own three rules, and one against lists. They look at the text that the C4 rules left."""

    thresholds: ClassVar[frozenset[str]] = frozenset(("line_punct", "short_line", "char_dup", "list_ratio"))

    enabled: bool = True
    """Drop documents that are lists, navigation or fragments."""
    line_punct: Fraction | None = 0.12
    """Lines that end in a sentence's punctuation, as a fraction of all lines, at least. A closing quotation mark is
    none."""
    short_line: Fraction | None = 0.67
    """Short lines, as a fraction of all lines, at most."""
    short_line_length: Count = 30
    """A line of up to this many characters is short."""
    char_dup: Fraction | None = 0.01
    """Characters in lines seen before, as a fraction of all, at most."""
    list_ratio: Annotated[float, Field(ge=0)] | None = 0.3
    """Line breaks a word, at most."""


class QualitySettings(Settings):
    """A fastText classifier trained on good and bad examples, as DCLM filters (Li et al. 2024, arXiv:2406.11794). It
    runs where a model or examples are named, and takes the text that the steps before left.
    """

    thresholds: ClassVar[frozenset[str]] = frozenset(("threshold",))

    enabled: bool = True
    """Drop documents that look more like the bad examples."""
    model: str = ""
    """A corpus whose filter has trained a classifier (it keeps it as `quality.bin`), or the file of a fastText model,
    such as DCLM's. Trains nothing."""
    good: list[str] = []
    """Train one on these: corpora, or files and folders of documents. DCLM took instructions and answers that people
    found good (OpenHermes 2.5, and the best of Reddit's ELI5)."""
    bad: list[str] = []
    """Against these; DCLM took documents of its own pool at random. About as many as of the good: the threshold means
    little otherwise."""
    threshold: Fraction | None = 0.5
    """The probability of being good, at least. Balanced examples make 0.5 the even odds; what fraction of your pool it
    keeps is what a sweep shows. DCLM keeps the best tenth, which for its own model is 0.018112."""
    label: str = "hq"
    """What the good examples are called in the model. DCLM's name."""
    lowercase: bool = False
    """Compare words in lower case; DCLM does not. A model wants the same when it is used as when it was trained."""
    word_ngrams: int = Field(2, ge=1, le=5)
    """Features are single words and up to this many in a row. DCLM's 2."""
    dimensions: int = Field(32, ge=1, le=1000)
    """Of the words' vectors. fastText's default of 100 told 200 documents apart no better (AUC 0.999 either way), and
    with its 2,000,000 buckets makes a model of 800 MB for every process to load; this and the next make one of 26 MB
    and its words."""
    buckets: int = Field(200_000, ge=1)
    """The n-grams of words share this many vectors."""
    epochs: int = Field(15, ge=1)
    """Passes over the examples."""
    learning_rate: float = Field(0.5, gt=0)
    """fastText's defaults of 5 epochs at 0.1, which DCLM kept for 400,000 examples, are too little for few: trained on
    500 documents they reached an AUC of 0.82 where these reached 0.999."""
    held_out: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """The part of the examples, chosen by the digest of their text, that is not trained on but measures the result."""

    @property
    def wanted(self) -> bool:
        """Whether the step runs."""
        return self.enabled and bool(self.model or self.good or self.bad)

    @model_validator(mode="after")
    def _one_source(self) -> QualitySettings:
        if self.model and (self.good or self.bad):
            raise ValueError("a model is there to be used, good and bad to train one: give one or the other")
        if bool(self.good) != bool(self.bad):
            raise ValueError("it takes good and bad examples to train on")
        return self


class DecontaminationSettings(Settings):
    """Documents that hold items of evaluation sets, found by runs of words (Brown et al. 2020, arXiv:2005.14165, app.
    C). It runs where sets are named.
    """

    thresholds: ClassVar[frozenset[str]] = frozenset(("most",))

    enabled: bool = True
    """Drop contaminated documents."""
    sets: list[str] = []
    """Evaluation sets: JSON Lines, Parquet or text files, or folders of them. A row is an item, and a paragraph of a
    text file."""
    fields: list[str] = []
    """The fields of a row to look for. Empty: every one that holds text, lists and objects in it too. Each counts by
    itself, and all of them joined in their order, so that a question with its answer behind it is found."""
    ngram: int = Field(13, ge=1, le=100)
    """Words in a row that a document may not share with an item: GPT-3's 13 (datatrove: 12). Fewer find more
    paraphrases and more innocent phrases. Words are compared as MinHash does: no case, no punctuation, all numbers
    alike."""
    min_words: int = Field(8, ge=1)
    """A text of an item with fewer words than `ngram` is looked for as a whole if it has at least this many (GPT-3's
    smallest n); shorter ones ("Paris") are everywhere and passed over."""
    most: Count | None = 0
    """Different runs of an item that a document may hold."""

    @property
    def wanted(self) -> bool:
        """Whether the step runs."""
        return self.enabled and bool(self.sets)


class OwnSettings(Settings):
    """A person's own filter."""

    function: Annotated[str, AfterValidator(_is_function_name)] = ""
    """`module:function`, found from the folder where llmctl is run. The function gets a document as a dict (text, id,
    url, date, dump, file_path, language, language_score) and returns True to keep it, or False, or (False,
    "reason")."""


class ExactSettings(Settings):
    """Documents that are the same to the character."""

    enabled: bool = True
    """Keep the first of equal texts. FineWeb leaves this to MinHash, which passes over texts of under five words."""


class MinHashSettings(Settings):
    """Documents that are nearly the same, over the whole corpus."""

    enabled: bool = True
    """Keep the first of every cluster of near-duplicates."""
    buckets: int = Field(14, ge=1, le=1000)
    """Two documents are linked if any bucket's hashes are all equal. More buckets find less similar pairs."""
    hashes: int = Field(8, ge=1, le=100)
    """Hashes a bucket. More find only more similar pairs. 14 of 8 link a pair of similarity s with probability
    1-(1-s^8)^14: 77 % at 0.75, 92 % at 0.8, 99.95 % at 0.9."""
    ngram: int = Field(5, ge=1, le=100)
    """Similarity is that of the sets of this many words in a row. Shorter documents are always kept."""


class PiiSettings(Settings):
    """Personal data in the text is replaced by harmless stand-ins; nothing is dropped."""

    enabled: bool = True
    """Replace what the switches below say."""
    email: bool = True
    """E-mail addresses, by addresses at example.com."""
    ip: bool = True
    """Public IPv4 addresses, by six fixed ones that answer nobody."""
    phone: bool = False
    """Telephone numbers, by one from the range reserved for fiction. Off as in FineWeb: other long numbers look
    alike."""


class FilterConfig(StageSettings):
    """Raw pages to a clean corpus: the FineWeb recipe in its published order, every dropped document accounted for."""

    stage: ClassVar[str] = "filter"
    makes: ClassVar[str] = "corpus"

    out: str = "corpus"
    """The name of the corpus to make."""
    pages: Annotated[str, InputOf(("pages", "corpus"), files=True)]
    """What to filter: pages or a corpus of the workspace, or a file or folder (WARC, HTML, text, JSON Lines,
    Parquet)."""
    tokenizer: Annotated[str, InputOf(("tokenizer",), files=True)] = ""
    """Fills the column `token_count` (special tokens not counted). Without one it stays empty: another measure
    under that name would mislead whoever adds it up."""
    url: UrlSettings = UrlSettings()
    extract: ExtractSettings = ExtractSettings()
    language: LanguageSettings = LanguageSettings()
    gopher_repetition: GopherRepetitionSettings = GopherRepetitionSettings()
    gopher_quality: GopherQualitySettings = GopherQualitySettings()
    c4: C4Settings = C4Settings()
    fineweb_quality: FineWebQualitySettings = FineWebQualitySettings()
    quality: QualitySettings = QualitySettings()
    decontamination: DecontaminationSettings = DecontaminationSettings()
    own: OwnSettings = OwnSettings()
    exact: ExactSettings = ExactSettings()
    minhash: MinHashSettings = MinHashSettings()
    pii: PiiSettings = PiiSettings()
    dropped_text: bool = True
    """Keep the text of dropped documents beside the corpus. Off saves the space; the rule and the value stay."""
    scores: bool = True
    """Measure every rule on every document, also behind the first that drops it, and keep the values and the extracted
    texts beside the corpus: `llmctl filter THIS_CORPUS --set ...` then decides again in seconds. Off, a document is
    left at its first failure and the space is saved."""
    strict: bool = False
    """End with an error at the first damaged place of an input. Off, what can be read is read and the rest is named."""
    workers: Annotated[int, Field(ge=0), NoResult()] = 0
    """Processes; 0 means one a core. The result does not depend on it."""
    engine: Annotated[Literal["local", "ray"], NoResult()] = "local"
    """Where the processes run: on this machine, or on a Ray cluster (an extra: pip install 'llmctl-toolkit[ray]')."""

    def inputs(self) -> list[tuple[str, Sequence[str], bool]]:
        """The pages, and what the quality classifier and the decontamination read."""
        found = super().inputs()
        if self.quality.wanted:
            examples = [*self.quality.good, *self.quality.bad, *([self.quality.model] if self.quality.model else [])]
            found += [(name, ("corpus",), True) for name in examples]
        if self.decontamination.wanted:
            found += [(name, ("conversations", "corpus"), True) for name in self.decontamination.sets]
        return found

    def recorded(self, fingerprint: bool = False) -> dict[str, Any]:
        """Every setting; in the fingerprint also what the files hold that settings name: lists, model, own function."""
        found = super().recorded(fingerprint)
        if fingerprint:
            found["files"] = {name: _digest(name) for name in sorted(self._named_files())}
        return found

    def _named_files(self) -> set[str]:
        lists = (self.url.domains, self.url.urls, self.url.words, self.url.soft_words, self.url.subwords)
        names = {e[len(FILE_MARK) :] for entries in lists for e in entries if e.startswith(FILE_MARK)}
        own = self.own.function.partition(":")[0].replace(".", "/")
        return names | ({self.language.model} - {""}) | ({f"{own}.py", f"{own}/__init__.py"} if own else set())


def _digest(name: str) -> str:
    from llmctl.workspace.files import sha256_file

    path = Path(name).expanduser()
    return sha256_file(path) if path.is_file() else ""
