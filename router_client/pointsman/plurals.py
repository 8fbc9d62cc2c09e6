"""Numbers with their word: 1 task, 2 tasks. Pure."""


def counted(number: float, word: str, words: str = "") -> str:
    """Return `1 task`, `1,200 tasks`, `0.5 hours`. `words`: the plural, if it is not `word` and an s."""
    text = f"{number:,}" if isinstance(number, int) else f"{number:,g}"
    return f"{text} {plural_of(number, word, words)}"


def plural_of(number: float, word: str, words: str = "") -> str:
    """Return the word alone, for a number that is written apart."""
    return word if number == 1 else words or f"{word}s"
