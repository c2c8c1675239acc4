"""The page to look and correct, `digitd web`: Starlette, templates, one script, one style sheet, no build step."""
