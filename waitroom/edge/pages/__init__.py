"""The pages that visitors see, in every language."""
