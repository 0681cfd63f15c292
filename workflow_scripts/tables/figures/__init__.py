"""The figures: one module a subject, drawn once and written inside the report or alone."""
