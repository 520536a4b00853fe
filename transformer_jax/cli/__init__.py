"""The command line: `main` finds the verb; one file a verb says its options and calls one function."""
