"""Tokenizers: trained on texts with Hugging Face's library, or loaded from its JSON.

Whatever tokenizer it is, id 0 is padding and id 1 is the unknown token.
"""

from __future__ import annotations

import collections
import functools
import json
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Int, Int32

from jdlopt.errors import ConfigError, DataError

PADDING, UNKNOWN = "[PAD]", "[UNK]"
PADDING_ID, UNKNOWN_ID = 0, 1
END_ID = UNKNOWN_ID
"""What stands between texts of a byte-level tokenizer, to which no text is unknown; GPT-2's
``<|endoftext|>`` is both."""
LONGEST_WORD = 100
"""A longer word is unknown to WordPiece, as it is to BERT's; byte pairs are learnt within pieces of
this length, because a merge costs time in proportion to the word."""

_PADDING_NAMES = (PADDING, "<pad>", "<|pad|>", "<PAD>")
_UNKNOWN_NAMES = (UNKNOWN, "<unk>", "<|unk|>", "<UNK>", "<|endoftext|>")
_CONTINUES = "##"
_LINE_WORDS = 1000
LARGEST = 200_000_000
"""Characters of a tokenizer; the largest public ones have 35 million."""
LEAST_SECONDS, LEAST_SPEED = 60.0, 10_000.0
"""What a tokenizer is given: so long, and longer for more than so many characters a second."""


def count_words(texts: Iterable[str]) -> collections.Counter[str]:
    """Returns how often each word, a run without spaces, occurs in clean texts."""
    counts: collections.Counter[str] = collections.Counter()
    for text in texts:
        counts.update(text.split())
    return counts


# --- training -------------------------------------------------------------------------------------


def train_wordpiece(counts: collections.Counter[str], vocab_size: int, min_frequency: int) -> str:
    """Returns a WordPiece tokenizer as JSON: words in pieces, what continues a word marked ``##``.

    Words are split at spaces, at punctuation and around Chinese characters, as in Devlin et al.,
    "BERT", 2019 (https://arxiv.org/abs/1810.04805). Pieces are found by merging the most frequent
    pairs. A word that has no such pieces is unknown.

    Args:
      counts: what `count_words` returned.
      vocab_size: the most entries that the vocabulary may have.
      min_frequency: a pair of pieces that occurs less often is not merged.
    """
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    normalizer = normalizers.BertNormalizer(
        clean_text=False, handle_chinese_chars=True, strip_accents=False, lowercase=False
    )
    splitter = pre_tokenizers.BertPreTokenizer()
    pieces: collections.Counter[str] = collections.Counter()
    for word, count in counts.items():
        for piece, _ in splitter.pre_tokenize_str(normalizer.normalize_str(word)):
            if len(piece) <= LONGEST_WORD:
                pieces[piece] += count
    alphabet, continuing = _alphabet(pieces, vocab_size - 2)
    known = {piece: count for piece, count in pieces.items() if alphabet.issuperset(piece)}
    # The library numbers the characters that continue a word in the order of a hash table, and
    # that decides between equally frequent pairs; as special tokens they have one order.
    first = [PADDING, UNKNOWN, *(_CONTINUES + character for character in sorted(continuing))]
    trained = Tokenizer(models.WordPiece(unk_token=UNKNOWN))
    trained.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    trained.train_from_iterator(
        _repeated(known),
        trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=first,
            initial_alphabet=sorted(alphabet),
            show_progress=False,
        ),
    )
    # Built anew without special tokens: a text that says "[PAD]" must not become padding.
    tokenizer = Tokenizer(
        models.WordPiece(
            trained.get_vocab(), unk_token=UNKNOWN, max_input_chars_per_word=LONGEST_WORD
        )
    )
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.WordPiece(prefix=_CONTINUES, cleanup=False)
    return tokenizer.to_str()


def _alphabet(pieces: collections.Counter[str], places: int) -> tuple[set[str], set[str]]:
    """Returns the characters that get a place, and which of them one more, as a continuation."""
    counts: collections.Counter[str] = collections.Counter()
    continues: set[str] = set()
    for piece, count in pieces.items():
        for character in piece:
            counts[character] += count
        continues.update(piece[1:])
    alphabet: set[str] = set()
    for character, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        places -= 2 if character in continues else 1
        if places < 0:
            break
        alphabet.add(character)
    return alphabet, continues & alphabet


def train_bpe(counts: collections.Counter[str], vocab_size: int, min_frequency: int) -> str:
    """Returns a byte-level BPE tokenizer as JSON: no text is unknown to it, and none is lost.

    Sennrich et al., "Neural machine translation of rare words with subword units", 2016
    (https://arxiv.org/abs/1508.07909), on bytes as in Radford et al., "Language models are
    unsupervised multitask learners", 2019.

    Args:
      counts: what `count_words` returned.
      vocab_size: the most entries that the vocabulary may have; 258 are the bytes and two more.
      min_frequency: a pair of pieces that occurs less often is not merged.

    Raises:
      ConfigError: the bytes alone need more places.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    bytes_alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if vocab_size < len(bytes_alphabet) + 2:
        raise ConfigError(
            f"data.text.vocab_size: {vocab_size} is too small for tokenizer='bpe', which has a "
            f"place for each byte: at least {len(bytes_alphabet) + 2}."
        )
    cut: collections.Counter[str] = collections.Counter()
    for word, count in counts.items():
        for start in range(0, len(word), LONGEST_WORD):
            cut[word[start : start + LONGEST_WORD]] += count
    trained = Tokenizer(models.BPE())
    trained.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    trained.train_from_iterator(
        _repeated(cut),
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=min_frequency,
            special_tokens=[PADDING, UNKNOWN],
            initial_alphabet=bytes_alphabet,
            show_progress=False,
        ),
    )
    # Built anew without special tokens, as in `train_wordpiece`.
    model = json.loads(trained.to_str())["model"]
    tokenizer = Tokenizer(models.BPE(model["vocab"], [tuple(pair) for pair in model["merges"]]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer.to_str()


def train_characters(counts: collections.Counter[str], vocab_size: int, min_frequency: int) -> str:
    """Returns a tokenizer of single characters as JSON; the space is always one of them.

    Args:
      counts: what `count_words` returned.
      vocab_size: the most entries that the vocabulary may have; the rarest characters are unknown.
      min_frequency: a character that occurs less often is unknown.
    """
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    seen: collections.Counter[str] = collections.Counter()
    for word, count in counts.items():
        for character in word:
            seen[character] += count
    often = sorted(seen.items(), key=lambda item: (-item[1], item[0]))
    known = [one for one, count in often if count >= min_frequency][: max(0, vocab_size - 3)]
    tokens = [PADDING, UNKNOWN, " ", *sorted(known)]
    numbers = {token: number for number, token in enumerate(tokens)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token=UNKNOWN))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    return tokenizer.to_str()


def _repeated(counts: dict[str, int]) -> Iterator[str]:
    """Yields each word as often as it was counted, in an order that texts have no part in."""
    for word, count in sorted(counts.items()):
        for start in range(0, count, _LINE_WORDS):
            yield " ".join([word] * min(_LINE_WORDS, count - start))


TOKENIZERS: dict[str, Callable[[collections.Counter[str], int, int], str]] = {
    "bpe": train_bpe,
    "characters": train_characters,
    "wordpiece": train_wordpiece,
}
"""Name → ``(counts, vocab_size, min_frequency) → tokenizer as JSON``."""


# --- using ----------------------------------------------------------------------------------------


class Placed(NamedTuple):
    """The tokens of a text.

    Attributes:
      ids: theirs.
      places: where each begins in the text, and behind which character it ends.
    """

    ids: Int32[np.ndarray, " tokens"]
    places: Int[np.ndarray, "tokens 2"]


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer whose ids are ours: 0 padding, 1 unknown, then its tokens in its own order.

    Attributes:
      tokenizer: the `tokenizers.Tokenizer`.
      tokens: the token of each of our ids.
      own_ids: the tokenizer's id of each of ours; -1 where it has no such token.
    """

    tokenizer: Any
    tokens: tuple[str, ...]
    own_ids: np.ndarray

    def encode(self, texts: Sequence[str]) -> list[Int32[np.ndarray, " tokens"]]:
        """Returns the ids of each text, as many as it has tokens; none of them is padding.

        Raises:
          DataError: the tokenizer fails on the texts.
        """
        ours = self._ours()
        return [ours(one) for one in self._encodings(texts, self.tokenizer.encode_batch_fast)]

    def encode_with_places(self, texts: Sequence[str]) -> list[Placed]:
        """Returns the ids of each text as `encode` does, and where in it each token stands.

        Raises:
          DataError: the tokenizer fails on the texts.
        """
        ours = self._ours()
        return [
            Placed(ours(one), np.array(one.offsets, np.int64).reshape(-1, 2))
            for one in self._encodings(texts, self.tokenizer.encode_batch)
        ]

    def _ours(self) -> Callable[[Any], Int32[np.ndarray, " tokens"]]:
        """Returns what makes ids of ours of an encoding of the library."""
        order = np.argsort(self.own_ids, kind="stable")
        ordered = self.own_ids[order]

        def ours(encoding: Any) -> np.ndarray:
            ids = order[np.searchsorted(ordered, np.array(encoding.ids, np.int64))].astype(np.int32)
            ids[ids == PADDING_ID] = UNKNOWN_ID  # a word that is spelt like padding
            return ids

        return ours

    def _encodings(self, texts: Sequence[str], call: Callable[..., Any]) -> Iterator[Any]:
        for start in range(0, len(texts), _LINE_WORDS):
            chunk = list(texts[start : start + _LINE_WORDS])
            yield from guarded(
                functools.partial(call, chunk, add_special_tokens=False),
                "the tokenizer fails on a text",
                sum(map(len, chunk)),
            )

    def template(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Returns the ids that the tokenizer's template puts before a text, and behind it.

        Of BERT's these are ``[CLS]`` and ``[SEP]``; both are empty where there is no template.
        """
        plain, whole = (
            guarded(
                functools.partial(self.tokenizer.encode, "a", add_special_tokens=special),
                "the tokenizer's template fails",
                1,
            ).ids
            for special in (False, True)
        )
        place = next(
            (at for at in range(len(whole)) if plain and whole[at : at + len(plain)] == plain), 0
        )
        ours = {own: index for index, own in enumerate(self.own_ids.tolist())}
        before, after = whole[:place], whole[place + len(plain) :]
        return tuple(ours[own] for own in before), tuple(ours[own] for own in after)

    def decode(self, ids: Int32[np.ndarray, "texts tokens"]) -> list[str]:
        """Returns the text of each row of ids; padding, and what has no token, is left out."""
        own = self.own_ids[ids]
        kept = [row[(row >= 0) & (place != PADDING_ID)].tolist() for row, place in zip(own, ids)]
        return self.tokenizer.decode_batch(kept, skip_special_tokens=False)


@functools.lru_cache(maxsize=4)
def load(text: str) -> Vocabulary:
    """Returns the vocabulary of a tokenizer in Hugging Face's JSON format.

    Its normalizer, splitter and model are used as they are. Its special tokens are not looked for
    in texts, and its truncation and padding are not used; `Vocabulary.template` gives its template.

    Raises:
      DataError: it is no such tokenizer; says why.
    """
    from tokenizers import Tokenizer

    what = "is no tokenizer in the JSON format of Hugging Face's tokenizers"
    if len(text) > LARGEST:
        raise DataError(f"{what}: it has {len(text):,} characters, more than {LARGEST:,}")
    tokenizer = guarded(functools.partial(Tokenizer.from_str, text), what, len(text))
    tokenizer.encode_special_tokens = True
    tokenizer.no_truncation()
    tokenizer.no_padding()
    vocabulary = tokenizer.get_vocab(with_added_tokens=True)
    spec = json.loads(text)
    unknown = _unknown_id(spec["model"], vocabulary)
    padding = _padding_id(spec.get("padding"), vocabulary)
    if padding == unknown:
        padding = None
    names = {own: token for token, own in sorted(vocabulary.items(), reverse=True)}
    rest = sorted(own for own in names if own not in (padding, unknown))
    own_ids = [-1 if padding is None else padding, -1 if unknown is None else unknown, *rest]
    tokens = [
        PADDING if padding is None else names[padding],
        UNKNOWN if unknown is None else names[unknown],
        *(names[own] for own in rest),
    ]
    return Vocabulary(tokenizer, tuple(tokens), np.array(own_ids, dtype=np.int64))


def _unknown_id(model: dict[str, Any], vocabulary: dict[str, int]) -> int | None:
    if isinstance(model.get("unk_id"), int):  # Unigram names a place, the other models a token
        return model["unk_id"] if model["unk_id"] in vocabulary.values() else None
    named = [model["unk_token"]] if isinstance(model.get("unk_token"), str) else []
    return _first_id((*named, *_UNKNOWN_NAMES), vocabulary)


def _padding_id(section: object, vocabulary: dict[str, int]) -> int | None:
    named = [section["pad_token"]] if isinstance(section, dict) else []
    return _first_id((*named, *_PADDING_NAMES), vocabulary)


@functools.cache
def _byte_alphabet() -> frozenset[str]:
    """Returns the characters that stand for bytes in the tokens of byte-level tokenizers."""
    from tokenizers import pre_tokenizers

    return frozenset(pre_tokenizers.ByteLevel.alphabet())


def is_byte_level(tokens: Sequence[str]) -> bool:
    """Returns whether tokens are bytes and runs of them: no text is unknown, and none is lost."""
    return _byte_alphabet().issubset(tokens)


@functools.lru_cache(maxsize=4)
def bytes_of(tokens: tuple[str, ...]) -> Int[np.ndarray, " tokens"]:
    """Returns how many bytes of text each token of a byte-level tokenizer is.

    Padding and the end of a text are none. The space that a tokenizer puts before each text counts.
    """
    found = np.array([len(token) for token in tokens], np.int64)
    found[[PADDING_ID, END_ID]] = 0
    return found


def _first_id(names: Sequence[str], vocabulary: dict[str, int]) -> int | None:
    return next((vocabulary[name] for name in names if name in vocabulary), None)


def guarded(call: Callable[[], Any], what: str, size: int) -> Any:
    """Returns what a call of the tokenizer library returns; whatever it raises is a `DataError`.

    A pattern that splits texts may go back and forth for ever, in code that no signal interrupts:
    then its thread is left behind.

    Args:
      call: of the library, which lets other threads run.
      what: went wrong, if it does.
      size: characters that it reads; they give it time.

    Raises:
      DataError: it fails, or takes too long.
    """
    found: list[Any] = []
    failed: list[BaseException] = []

    def run() -> None:
        try:
            found.append(call())
        except BaseException as error:
            failed.append(error)

    seconds = LEAST_SECONDS + size / LEAST_SPEED
    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    if thread.is_alive():
        raise DataError(
            f"{what}: it took more than {seconds:.0f} seconds for {size:,} characters. Does a "
            "pattern of the tokenizer repeat what it repeats? Use another tokenizer."
        )
    try:
        if failed:
            raise failed[0]
        return found[0]
    except BaseException as error:
        # a panic of the library's Rust code is no Exception
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{what}: {' '.join(str(error).split())[:300]}") from error
