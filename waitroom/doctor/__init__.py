"""Checks of a whole deployment: facts are gathered once (`gather`), and pure functions judge them."""
