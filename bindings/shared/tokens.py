"""An estimate of how many tokens a text has, without a model's tokenizer."""


def count_tokens(text: str) -> int:
    """One token for each Han character, and one for every four other characters."""
    han = sum("\u4e00" <= character <= "\u9fff" for character in text)
    return han + -(-(len(text) - han) // 4)
