"""The text below the options of a verb in `--help`: details, examples and exit codes."""

from __future__ import annotations


def manual(about: str, *examples: str, exits: str = "") -> str:
    """Return the text for `help_epilogue`.

    Args:
        about: Paragraphs, separated by empty lines; each is filled to the width of the terminal.
        *examples: Command lines, each shown on a line of its own.
        exits: Exit codes and their meaning, separated by commas.
    """
    paragraphs = [" ".join(paragraph.split()) for paragraph in about.split("\n\n") if paragraph.strip()]
    if examples:
        paragraphs.append("Examples:" if len(examples) > 1 else "Example:")
        paragraphs.append("\n".join(f"  {example}" for example in examples))
    if exits:
        paragraphs.append(f"Exit codes: {exits}.")
    return "\n\n".join(paragraphs)
